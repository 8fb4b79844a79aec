//! What a new agent says about its identity in Wazuh, and whether the lists of Wazuh managers agree. A claim that contradicts
//! waits for a person: alerts of one host must not be answered on another.

use super::host_name::is_same_host;

/// An agent of Wazuh, as its manager lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAgent {
    /// Name of the Wazuh manager.
    pub manager: String,
    /// Id, of at least three digits.
    pub id: String,
    /// Name.
    pub name: String,
}

/// Whether a claim is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// The lists agree. The manager is named where there are several.
    Agrees {
        /// Name of the Wazuh manager, if it has to be told apart from others.
        manager: Option<String>,
    },
    /// A person has to decide, for this reason.
    Contradicts(String),
    /// There is no list yet.
    Unknown,
}

/// Judges the claim to be agent `id`, called `name`. `listed` are the agents of all lists that have this id, and `managers` is the
/// number of lists.
pub fn judge(id: &str, name: &str, listed: &[ListedAgent], managers: usize) -> ClaimVerdict {
    if managers == 0 {
        return ClaimVerdict::Unknown;
    }
    let agree: Vec<_> = listed.iter().filter(|agent| agent.id == id && is_same_host(&agent.name, name)).collect();
    match agree.as_slice() {
        [one] => ClaimVerdict::Agrees { manager: (managers > 1).then(|| one.manager.clone()) },
        [] => ClaimVerdict::Contradicts(match listed.iter().find(|agent| agent.id == id) {
            Some(other) => {
                format!("it says that it is {name} in Wazuh, but Wazuh's agent {id} is called {}", other.name)
            }
            None => format!("it says that it is agent {id} of Wazuh, which has no such agent"),
        }),
        _ => ClaimVerdict::Contradicts(format!("several Wazuh managers have an agent {id} called {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_believed_only_where_the_lists_agree() {
        let listed =
            |manager: &str, name: &str| ListedAgent { manager: manager.into(), id: "005".into(), name: name.into() };
        let web = [listed("w1", "web-01")];
        assert_eq!(judge("005", "web-01", &[], 0), ClaimVerdict::Unknown);
        assert_eq!(judge("005", "WEB-01.example.org", &web, 1), ClaimVerdict::Agrees { manager: None });
        assert_eq!(judge("005", "web-01", &web, 2), ClaimVerdict::Agrees { manager: Some("w1".into()) });
        let doubt = |verdict| match verdict {
            ClaimVerdict::Contradicts(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(doubt(judge("005", "db-01", &web, 1)).contains("agent 005 is called web-01"));
        assert!(doubt(judge("006", "web-01", &[], 1)).contains("has no such agent"));
        assert!(
            doubt(judge("005", "web-01", &[listed("w1", "web-01"), listed("w2", "web-01")], 2)).contains("several")
        );
    }
}
