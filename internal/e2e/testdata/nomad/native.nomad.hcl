# A Connect-native task that is the proxy, as in deploy/nomad/web-native.nomad.hcl.
job "native" {
  group "web" {
    network {
      mode = "bridge"
      port "mesh" {
        to = 15006
      }
    }

    service {
      name = "native"
      port = "mesh"
      task = "outrigger"
      connect {
        native = true
      }
    }

    task "outrigger" {
      driver = "raw_exec"
      config {
        command = "${meta.bin}/outrigger"
        args    = ["run", "--config", "${NOMAD_TASK_DIR}/outrigger.yaml"]
      }
      template {
        destination   = "local/outrigger.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          service: {name: native, port: 8080}
          identity: {consul: {method: leaf}}
          inbound: {listen: "0.0.0.0:15006"}
          discovery: {consul: {address: 'unix://{{ env "NOMAD_ALLOC_DIR" }}/tmp/consul_http.sock'}}
        YAML
      }
      resources {
        cpu    = 100
        memory = 64
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
        OUTRIGGER_E2E_APPLICATION = "native 127.0.0.1:8080"
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
