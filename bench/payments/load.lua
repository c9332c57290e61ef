-- For wrk: sends the requests of a file in order, each once. Every thread has its own file, made by
-- `signed_requests.py`: eight digits that say how long a request is, then the request as it goes
-- over the wire. When its file ends, a thread has nothing more to send and stops.

local folder = os.getenv("BENCH_REQUESTS")
local made = 0

function setup(thread)
   made = made + 1
   thread:set("number", made)
end

function init(args)
   file = io.open(folder .. "/" .. number, "rb")
   file:setvbuf("full", 1048576)
end

function request()
   if file == nil then  -- wrk tries the script once before any thread exists
      return wrk.format("GET", "/nothing-more")
   end
   local length = file:read(8)
   if length == nil then
      wrk.thread:stop()
      return wrk.format("GET", "/nothing-more")
   end
   return file:read(tonumber(length))
end

function done(summary, latency, requests)
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "not_2xx": %d, "broken": %d, "p50_ms": %.3f, '
         .. '"p99_ms": %.3f, "max_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, summary.errors.status,
      summary.errors.connect + summary.errors.read + summary.errors.write
         + summary.errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
