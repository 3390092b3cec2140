# The service web with a sidecar task. Consul registers the sidecar's port
# through Nomad; the sidecar finds the others in Consul.
job "web" {
  datacenters = ["dc1"]

  group "web" {
    count = 3

    network {
      mode = "bridge"
      port "mesh" {
        to = 15006
      }
    }

    service {
      name = "web"
      port = "mesh"
      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    # Serve on while callers learn that this allocation is going.
    shutdown_delay = "5s"

    task "outrigger" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      config {
        image   = "outrigger:dev"
        args    = ["run", "--config", "/local/outrigger.yaml"]
        ports   = ["mesh"]
        volumes = ["/run/spire/agent:/run/spire/agent:ro"]
      }
      env {
        # The agent must listen on this address; loopback is the allocation's own.
        CONSUL_HTTP_ADDR = "http://${attr.unique.network.ip-address}:8500"
      }
      template {
        destination   = "local/outrigger.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          service: {name: web, port: 8080}
          identity: {workload_api: "unix:///run/spire/agent/agent.sock"}
          inbound: {listen: "0.0.0.0:15006"}
          discovery: {consul: {}}
          outbound:
            upstreams:
              - {service: api, listen: "127.0.0.1:9001"}
          policies:
            api: {timeout: 2s}
        YAML
      }
      # drain.delay and drain.timeout, and a little.
      kill_timeout = "40s"
      resources {
        cpu    = 100
        memory = 64
      }
    }

    task "web" {
      driver = "docker"
      config {
        image = "web:dev"
      }
      env {
        API_URL = "http://127.0.0.1:9001"
      }
    }
  }
}
