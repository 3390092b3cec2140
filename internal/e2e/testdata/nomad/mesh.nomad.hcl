# Two services with Nomad's own sidecars. That of api is a program of the machine
# (raw_exec), that of web is in a chroot (exec): the paths of the bootstrap file
# mean another place in each.
job "mesh" {
  group "api" {
    network {
      mode = "bridge"
    }

    service {
      name = "api"
      port = "9090"
      check {
        name     = "asked through the sidecar"
        type     = "http"
        path     = "/health"
        expose   = true
        interval = "1s"
        timeout  = "1s"
      }
      connect {
        sidecar_service {}
        sidecar_task {
          driver = "raw_exec"
          config {
            command = "${meta.bin}/outrigger"
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

    task "api" {
      driver = "raw_exec"
      config {
        command = "${meta.bin}/application"
        args    = ["-test.run=^TestNomadApplication$"]
      }
      env {
        OUTRIGGER_E2E_NAMESPACE   = "${meta.bin}/outrigger"
        OUTRIGGER_E2E_APPLICATION = "api 127.0.0.1:9090"
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }

  group "web" {
    network {
      mode = "bridge"
      port "app" {
        to = 8080
      }
    }

    service {
      name = "web"
      port = "8080"
      connect {
        sidecar_service {
          proxy {
            config {
              outrigger = { policies = { api = { timeout = "2s" } } }
            }
            upstreams {
              destination_name = "api"
              local_bind_port  = 9001
            }
            upstreams {
              destination_name = "native"
              local_bind_port  = 9002
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

    task "web" {
      driver = "raw_exec"
      config {
        command = "${meta.bin}/application"
        args    = ["-test.run=^TestNomadApplication$"]
      }
      env {
        OUTRIGGER_E2E_NAMESPACE   = "${meta.bin}/outrigger"
        OUTRIGGER_E2E_APPLICATION = "web 0.0.0.0:8080"
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
