# A part of the configuration of Nomad's clients: sidecars of all jobs are
# Outrigger. Jobs still say in sidecar_task { env { ... } } where Consul's HTTP
# API is.
client {
  enabled = true
  meta {
    "connect.sidecar_image"     = "outrigger:dev"
    "connect.log_level"         = "info"
    "connect.proxy_concurrency" = "1"
  }
}
