-- wrk's script: the request, and one line of JSON that bench/load.py reads. The body comes by the environment.
wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY")

local keys = os.getenv("BENCH_KEYS") -- a file of client keys, used in turn
if keys and keys ~= "" then
  local all, n = {}, 0
  for key in io.lines(keys) do all[#all + 1] = key end
  request = function()
    n = n % #all + 1
    wrk.headers["x-api-key"] = all[n]
    return wrk.format()
  end
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'BENCH {"requests":%d,"microseconds":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50":%.1f,"p90":%.1f,"p99":%.1f,"max":%.1f}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
