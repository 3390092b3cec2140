# A service whose connections come to the sidecar by themselves: Nomad calls the
# CNI plugin that it knows as consul-cni.
job "transparent" {
  group "shop" {
    network {
      mode = "bridge"
      port "app" {
        to = 8080
      }
    }

    service {
      name = "shop"
      port = "8080"
      connect {
        sidecar_service {
          proxy {
            transparent_proxy {
              uid                   = "65534" # nobody, as whom exec runs its tasks
              exclude_inbound_ports = ["8080"]
            }
          }
        }
        sidecar_task {
          driver = "exec"
          config {
            command = "/bin/outrigger"
            args = [
              "-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json", "-l", "${meta.connect.log_level}",
              "--concurrency", "${meta.connect.proxy_concurrency}", "--disable-hot-restart",
            ]
          }
          env {
            CONSUL_HTTP_ADDR = "http://${attr.unique.network.ip-address}:${meta.consul_port}"
          }
          resources {
            cpu    = 100
            memory = 64
          }
        }
      }
    }

    task "shop" {
      driver = "raw_exec"
      config {
        command = "${meta.bin}/application"
        args    = ["-test.run=^TestNomadApplication$"]
      }
      env {
        OUTRIGGER_E2E_NAMESPACE   = "${meta.bin}/outrigger"
        OUTRIGGER_E2E_APPLICATION = "shop 0.0.0.0:8080"
        OUTRIGGER_E2E_DNS         = "${attr.unique.network.ip-address}:53"
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
