"""How well the bundled services do on public data: `make quality DATA=folder`."""
