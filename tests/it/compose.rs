//! `docker-compose.yml` and the files that it mounts, without a container engine: what they name exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::processes::require;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    yaml_serde::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names in a list, or the keys of an object.
fn names(of: &Value) -> Vec<&str> {
    match of {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap()).collect(),
        Value::Object(object) => object.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_name_in_the_compose_file_exists() {
    let file = yaml("docker-compose.yml");
    let services = file["services"].as_object().unwrap();
    let (networks, volumes) = (names(&file["networks"]), names(&file["volumes"]));
    // Settings that `riposte serve` reads.
    let known: BTreeSet<String> = riposte::cli::command()
        .find_subcommand("serve")
        .unwrap()
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    assert!(known.contains("RIPOSTE_DATABASE_URL"), "{known:?}");
    let mut mounted = 0;
    for (name, service) in services {
        let is_optional = |name: &str| services[name]["profiles"] == serde_json::json!(["cluster"]);
        for other in names(&service["depends_on"]) {
            assert!(services.contains_key(other), "{name} depends on {other}");
            assert!(is_optional(name) || !is_optional(other), "{name} would start the cluster's {other}");
        }
        for network in names(&service["networks"]) {
            assert!(networks.contains(&network), "{name}: {network}");
        }
        for volume in names(&service["volumes"]) {
            let (from, _) = volume.split_once(':').unwrap();
            if let Some(path) = from.strip_prefix("./") {
                assert!(!read(path).is_empty(), "{name}: {path}");
                mounted += 1;
            } else {
                assert!(volumes.contains(&from), "{name}: {from}");
            }
        }
        for port in names(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to other machines: {port}");
        }
        if name.starts_with("manager") {
            for setting in names(&service["environment"]) {
                assert!(known.contains(setting), "{name}: {setting}");
            }
        }
    }
    assert_eq!(mounted, 6);
    for host in ["manager", "manager-2", "proxy", "prometheus", "grafana", "agent", "postgres"] {
        assert!(services.contains_key(host), "{host}");
    }
    let targets = &yaml("deploy/compose/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"];
    for target in names(targets) {
        assert!(services.contains_key(target.split(':').next().unwrap()), "{target}");
    }
    assert_eq!(yaml("deploy/compose/grafana-datasource.yml")["datasources"][0]["url"], "http://prometheus:9090");
    assert_eq!(
        yaml("deploy/compose/grafana-dashboards.yml")["providers"][0]["options"]["path"],
        "/var/lib/grafana/dashboards"
    );
}

#[test]
fn nginx_takes_the_file_of_the_compose_proxy() {
    require(&[("nginx", "nginx")]);
    let dir = tempfile::tempdir().unwrap();
    // The names of the containers do not resolve here.
    let text = read("deploy/compose/nginx.conf")
        .replace("manager:8480", "127.0.0.1:1")
        .replace("manager-2:8480", "127.0.0.1:2");
    let config = dir.path().join("nginx.conf");
    std::fs::write(&config, format!("pid {}/pid;\n{text}", dir.path().display())).unwrap();
    let output =
        Command::new("nginx").args(["-t", "-q", "-p"]).arg(dir.path()).arg("-c").arg(&config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
