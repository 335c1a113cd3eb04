// Etsy's StatsD daemon, which sends to Graphite. It is bound to loopback unless told otherwise.
{
  address: process.env.STATSD_BIND || "127.0.0.1",
  port: Number(process.env.STATSD_PORT || 8125),
  // `echo counters | nc 127.0.0.1 8126` shows what came in since the last flush.
  mgmt_address: process.env.STATSD_BIND || "127.0.0.1",
  mgmt_port: Number(process.env.STATSD_ADMIN_PORT || 8126),

  backends: ["./backends/graphite"],
  graphiteHost: process.env.GRAPHITE_HOST || "127.0.0.1",
  graphitePort: Number(process.env.GRAPHITE_PORT || 2003),
  // stats.counters.NAME.count and .rate, stats.timers.NAME.upper_95, stats.gauges.NAME
  graphite: { legacyNamespace: false },

  flushInterval: Number(process.env.STATSD_FLUSH_MS || 10000),
  percentThreshold: [50, 95, 99],
  automaticConfigReload: false,
}
