evproxy injects [faults](docs/faults.md) into sessions, in the file (`faults` of a listener or a pool), in Python
(`evproxy.faults`) and while sessions run: latency with jitter, bandwidth, slices, limits, timeouts, slow closes, stalls,
half-open connections, resets and ends at a byte, truncated or corrupted bytes, TLS handshakes that fail or stall. A seed
repeats a run.
