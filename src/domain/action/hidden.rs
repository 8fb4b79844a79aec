//! Arguments that are secrets themselves: the address of a Slack hook lets any program post to it. They
//! belong into a secret (`secret:NAME`). One that stands in clear is sent to agents, and views show
//! [`HIDDEN`] in its place.

use serde_json::Value;

use crate::domain::secret_reference::reference;

/// Built-in actions whose arguments are secrets.
const ACTIONS: &[&str] = &["wazuh-slack"];
/// What is shown instead of such an argument.
pub const HIDDEN: &str = "[hidden]";

/// Whether an argument of `action` is a secret in clear.
pub fn is_in_clear(action: &str, argument: &str) -> bool {
    ACTIONS.contains(&action) && reference(argument).is_none() && argument != HIDDEN
}

/// Hides what is in clear among `arguments` of `action`; returns whether there was any.
pub fn hide(action: &str, arguments: &mut [String]) -> bool {
    let mut hidden = false;
    for argument in arguments.iter_mut().filter(|argument| is_in_clear(action, argument)) {
        HIDDEN.clone_into(argument);
        hidden = true;
    }
    hidden
}

/// Hides what is in clear in the document of a policy; returns whether there was any.
pub fn hide_in_policy(document: &mut Value) -> bool {
    let action = document["respond"]["action"].as_str().unwrap_or_default().to_owned();
    let arguments = document.pointer_mut("/respond/arguments").and_then(Value::as_array_mut);
    let mut hidden = false;
    for argument in arguments.into_iter().flatten() {
        if argument.as_str().is_some_and(|text| is_in_clear(&action, text)) {
            *argument = HIDDEN.into();
            hidden = true;
        }
    }
    hidden
}

/// What to do about a policy with a hook in clear.
pub fn remedy(policy: &str) -> String {
    format!(
        "the policy {policy} has the address of a webhook in clear. Make a new hook, store it (`riposte secret set NAME \
         --value-file FILE --action wazuh-slack`), and write secret:NAME into the policy's arguments"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hook_in_clear_is_hidden_and_a_reference_is_not() {
        let hidden = |action: &str, argument: &str| {
            let mut arguments = [argument.to_owned()];
            (hide(action, &mut arguments), arguments[0].clone())
        };
        assert_eq!(hidden("wazuh-slack", "https://hooks.example/T/B/x"), (true, HIDDEN.to_owned()));
        assert_eq!(hidden("wazuh-slack", "secret:hook"), (false, "secret:hook".to_owned()));
        assert_eq!(hidden("wazuh-slack", HIDDEN), (false, HIDDEN.to_owned()));
        assert_eq!(hidden("firewall-drop", "output"), (false, "output".to_owned()));
        let mut policy = json!({"respond": {"action": "wazuh-slack", "arguments": ["https://hooks.example/x"]}});
        assert!(hide_in_policy(&mut policy));
        assert_eq!(policy["respond"]["arguments"], json!([HIDDEN]));
        for mut other in [json!({}), json!(null), json!({"respond": {"action": "wazuh-slack"}})] {
            assert!(!hide_in_policy(&mut other));
        }
    }
}
