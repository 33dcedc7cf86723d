-- Repeats one POST, and writes what was measured as one line of JSON.

function init(arguments)
   wrk.method, wrk.body = "POST", arguments[1]
   wrk.headers["Content-Type"] = "application/json"
   for index = 2, #arguments, 2 do
      wrk.headers[arguments[index]] = arguments[index + 1]
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
