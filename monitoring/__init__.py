"""What watches the platform: Prometheus' configuration and rules, and Grafana's dashboards."""
