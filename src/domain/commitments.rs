//! Commitments to texts that can name a person: a hash covers them, and not the texts, so that a text can be removed
//! and the hash stays (`docs/decisions/0046-people-can-be-forgotten.md`).

use aws_lc_rs::hmac;

/// Number of texts of an entry of the audit log that can name a person: actor, id and detail.
pub const TEXTS: usize = 3;
/// Length of a salt, in bytes: what has to be guessed beside the text.
const SALT_BYTES: usize = 16;
/// Length of a commitment, in bytes.
const COMMITMENT_BYTES: usize = 32;
/// Random bytes for the salts of one entry.
pub const RANDOM_BYTES: usize = TEXTS * SALT_BYTES;

/// What is stored about one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The text is there; this is the salt of its commitment.
    Salt([u8; SALT_BYTES]),
    /// The text was removed; this is the commitment. Without the salt no guess of the text can be checked.
    Removed([u8; COMMITMENT_BYTES]),
}

/// What is stored about the texts of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitments([Part; TEXTS]);

impl Commitments {
    /// With fresh salts from random bytes.
    pub fn new(random: [u8; RANDOM_BYTES]) -> Self {
        let mut salts = random.chunks_exact(SALT_BYTES);
        Self(std::array::from_fn(|_| {
            let mut salt = [0; SALT_BYTES];
            if let Some(bytes) = salts.next() {
                salt.copy_from_slice(bytes);
            }
            Part::Salt(salt)
        }))
    }

    /// As it is stored: each part with a first byte that says which it is.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Salt(salt) => {
                    bytes.push(1);
                    bytes.extend(salt);
                }
                Part::Removed(commitment) => {
                    bytes.push(2);
                    bytes.extend(commitment);
                }
            }
        }
        bytes
    }

    /// Reads what is stored; `None` if it is no such thing.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut parts = [Part::Salt([0; SALT_BYTES]); TEXTS];
        for part in &mut parts {
            let (kind, rest) = bytes.split_first()?;
            (*part, bytes) = match kind {
                1 => rest.split_first_chunk().map(|(salt, rest)| (Part::Salt(*salt), rest))?,
                2 => rest.split_first_chunk().map(|(commitment, rest)| (Part::Removed(*commitment), rest))?,
                _ => return None,
            };
        }
        bytes.is_empty().then_some(Self(parts))
    }

    /// The commitments to these texts. One that was removed does not matter.
    pub(super) fn to(self, texts: [&str; TEXTS]) -> [[u8; COMMITMENT_BYTES]; TEXTS] {
        std::array::from_fn(|at| match self.0[at] {
            Part::Salt(salt) => commitment(&salt, texts[at]),
            Part::Removed(commitment) => commitment,
        })
    }

    /// Removes text number `at`.
    pub fn remove(&mut self, at: usize, text: &str) {
        if let Some(Part::Salt(salt)) = self.0.get(at) {
            self.0[at] = Part::Removed(commitment(salt, text));
        }
    }

    /// Which texts were removed.
    pub fn removed(&self) -> [bool; TEXTS] {
        self.0.map(|part| matches!(part, Part::Removed(_)))
    }
}

fn commitment(salt: &[u8], text: &str) -> [u8; COMMITMENT_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), text.as_bytes());
    let mut commitment = [0; COMMITMENT_BYTES];
    commitment.copy_from_slice(tag.as_ref());
    commitment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Commitments {
        Commitments::new(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    #[test]
    fn a_removed_text_keeps_its_commitment_and_the_others_count_on() {
        let (mut stored, texts) = (fresh(), ["user:alice", "web-01", "seen"]);
        let before = stored.to(texts);
        for (at, text) in texts.iter().enumerate() {
            let mut changed = texts;
            changed[at] = "x";
            assert_ne!(stored.to(changed), before, "{text}");
        }
        stored.remove(0, texts[0]);
        stored.remove(2, texts[2]);
        assert_eq!((stored.to(["", texts[1], ""]), stored.removed()), (before, [true, false, true]));
        assert_ne!(stored.to(["", "web-02", ""]), before);
        stored.remove(0, "another text");
        assert_eq!(stored.to(["", texts[1], ""]), before, "once");
        let bytes = stored.to_bytes();
        assert_eq!((Commitments::parse(&bytes), bytes.len()), (Some(stored), 3 + 32 + 16 + 32));
        // Equal texts of one entry have different commitments.
        let same = fresh().to(["a"; 3]);
        assert!(same[0] != same[1] && same[1] != same[2]);
    }

    #[test]
    fn nothing_else_is_read() {
        let bytes = fresh().to_bytes();
        assert_eq!(Commitments::parse(&bytes), Some(fresh()));
        for wrong in [&bytes[1..], &bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat(), &[], &[3; 51]] {
            assert_eq!(Commitments::parse(wrong), None);
        }
    }
}
