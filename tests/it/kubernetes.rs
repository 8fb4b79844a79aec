//! `deploy/kubernetes/`, without a cluster: the settings that it names exist, and the agent has no more rights than its
//! header says. `make deploy-check` checks the manifests against Kubernetes' own schemas.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::processes::agent_program;

fn manifests(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    yaml_serde::Deserializer::from_str(&text).map(|part| serde::Deserialize::deserialize(part).unwrap()).collect()
}

/// The pods' template of the manifest of this kind.
fn pod(manifests: &[Value], kind: &str) -> Value {
    let of_kind = manifests.iter().find(|manifest| manifest["kind"] == kind);
    of_kind.unwrap_or_else(|| panic!("no {kind}"))["spec"]["template"]["spec"].clone()
}

fn settings(container: &Value) -> Vec<&str> {
    container["env"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect()
}

#[test]
fn the_manager_runs_without_rights_and_with_settings_that_exist() {
    let pod = pod(&manifests("manager.yaml"), "StatefulSet");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let command = riposte::cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let known: Vec<_> = serve.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let containers = ["initContainers", "containers"].map(|kind| pod[kind].as_array().unwrap().clone()).concat();
    assert_eq!(containers.len(), 2);
    for container in &containers {
        let confined = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}});
        assert_eq!(container["securityContext"], confined);
    }
    for setting in settings(&containers[1]) {
        assert!(known.contains(&setting), "{setting} is no setting of `riposte serve`");
    }
}

#[test]
fn an_agent_has_the_network_of_its_node_and_one_capability() {
    let pod = pod(&manifests("agent.yaml"), "DaemonSet");
    assert_eq!(pod["hostNetwork"], true);
    for right in ["hostPID", "hostIPC", "hostUsers"] {
        assert_eq!(pod[right], Value::Null, "{right}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
    let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
    let context = &container["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!((&context["privileged"], &context["allowPrivilegeEscalation"]), (&json!(false), &json!(false)));
    let of_host: Vec<_> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    assert_eq!(of_host, ["/var/lib/riposte-agent"], "no other folder of the node");
    let help: String = ["run", "enroll"]
        .map(|command| Command::new(agent_program()).args([command, "--help"]).output().unwrap().stdout)
        .map(|said| String::from_utf8(said).unwrap())
        .concat();
    // TOKEN_FILE is of the image's entry point.
    for setting in settings(container).into_iter().filter(|name| *name != "TOKEN_FILE") {
        assert!(help.contains(&format!("[env: {setting}=")), "{setting} is no setting of riposte-agent");
    }
}
