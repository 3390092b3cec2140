# The service web as a Connect-native task that is the proxy: Nomad registers the
# port of its inbound listener, and gives it Consul's HTTP API as a socket and a
# token. Upstreams stand in the proxy's file, and are native services too.
job "web" {
  datacenters = ["dc1"]

  group "web" {
    network {
      mode = "bridge"
      port "mesh" {
        to = 15006
      }
    }

    service {
      name = "web"
      port = "mesh"
      task = "outrigger"
      connect {
        native = true
      }
    }

    task "outrigger" {
      driver = "docker"
      config {
        image = "outrigger:dev"
        args  = ["run", "--config", "/local/outrigger.yaml"]
        ports = ["mesh"]
      }
      template {
        destination   = "local/outrigger.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          service: {name: web, port: 8080}
          # The gRPC port is not given to native tasks.
          identity: {consul: {method: leaf}}
          inbound: {listen: "0.0.0.0:15006"}
          discovery: {consul: {address: "unix:///alloc/tmp/consul_http.sock"}}
          outbound:
            upstreams:
              - {service: api, listen: "127.0.0.1:9001"}
        YAML
      }
      kill_timeout = "40s"
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
