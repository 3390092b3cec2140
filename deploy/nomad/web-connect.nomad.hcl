# The service web as Nomad's own Connect has it: Nomad registers the sidecar and
# starts it as it would start Envoy, with the same arguments and bootstrap file.
# The client needs the consul program for that file, as for Envoy.
job "web" {
  datacenters = ["dc1"]

  group "web" {
    network {
      mode = "bridge"
    }

    # Serve on while callers learn that this allocation is going.
    shutdown_delay = "5s"

    service {
      name = "web"
      port = "8080"
      connect {
        sidecar_service {
          proxy {
            upstreams {
              destination_name = "api"
              local_bind_port  = 9001
            }
          }
        }
        sidecar_task {
          # Not needed where the client's meta has connect.sidecar_image.
          config {
            image = "outrigger:dev"
          }
          # With transparent_proxy: the user whose traffic is left alone.
          user = "101"
          env {
            # The bootstrap file tells of Consul's gRPC port alone. The agent must
            # listen on this address; loopback is the allocation's own.
            CONSUL_HTTP_ADDR = "http://${attr.unique.network.ip-address}:8500"
          }
        }
      }
    }

    task "web" {
      driver = "docker"
      config {
        image = "web:dev"
      }
      env {
        API_URL = "http://${NOMAD_UPSTREAM_ADDR_api}"
      }
    }
  }
}
