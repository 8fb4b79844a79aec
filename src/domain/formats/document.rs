//! An alert as a tree whose fields are found by dotted path. A path matches keys that are nested,
//! dotted or both, as pipelines write them; a number in a path is an index into a list. A field is
//! parsed at its first use, and only once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::field::{Field, is_something, syntax_fault};
use crate::domain::fault::Fault;

/// A key, left where it is if it is written without escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Objects with more fields than this are looked up by hash: an attacker chooses how many fields there are.
const MANY_FIELDS: usize = 48;

/// The fields of an object, in their order. Of several with one key the last counts.
struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The place of each key, where there are many. Nearly all objects have few: to compare them costs less than to hash.
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        if self.fields.len() > MANY_FIELDS {
            let place = self.places.get(key)?;
            return self.fields.get(*place).map(|(_, value)| *value);
        }
        self.fields.iter().rev().find(|(known, _)| known == key).map(|(_, value)| *value)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(key, _)| &**key)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Key(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                let mut places = HashMap::new();
                if fields.len() > MANY_FIELDS {
                    places.extend(fields.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)));
                }
                Ok(Fields { fields, places })
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A value with children.
enum Node<'a> {
    Object {
        fields: Fields<'a>,
        /// Whether a key contains a dot; otherwise paths can only be nested.
        has_dots: bool,
    },
    List(Vec<&'a RawValue>),
    /// A string, number or boolean.
    Leaf,
}

impl<'a> Node<'a> {
    fn read(value: &'a RawValue) -> Self {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'{') => serde_json::from_str(text).map_or(Self::Leaf, Self::object),
            Some(b'[') => serde_json::from_str(text).map_or(Self::Leaf, Self::List),
            _ => Self::Leaf,
        }
    }

    fn object(fields: Fields<'a>) -> Self {
        let has_dots = fields.keys().any(|key| key.contains('.'));
        Self::Object { fields, has_dots }
    }
}

/// An alert's document.
pub(super) struct Document<'a> {
    top: Rc<Node<'a>>,
    /// What was read below, by where it stands in the text.
    nodes: RefCell<Vec<(usize, Rc<Node<'a>>)>>,
}

impl<'a> Document<'a> {
    /// Parses the top-level object.
    ///
    /// # Errors
    /// If `text` is not an object.
    pub(super) fn read(text: &'a str) -> Result<Self, Fault> {
        let fields: Fields = serde_json::from_str(text).map_err(|error| syntax_fault(&error))?;
        Ok(Self { top: Rc::new(Node::object(fields)), nodes: RefCell::default() })
    }

    /// The first value at `path` that is not `null` or an empty string; keys with the most dots are
    /// tried first.
    pub(super) fn at(&self, path: &str) -> Option<Field<'a>> {
        self.below(&self.top, path).map(Field)
    }

    /// The raw text of the top-level key `name`, if present.
    pub(super) fn top(&self, name: &str) -> Option<&'a str> {
        let Node::Object { fields, .. } = &*self.top else { return None };
        fields.get(name).map(RawValue::get)
    }

    /// Whether a top-level key is a dotted path below `name`.
    pub(super) fn has_dotted(&self, name: &str) -> bool {
        let Node::Object { fields, .. } = &*self.top else { return false };
        let is_below = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        fields.keys().any(is_below)
    }

    fn below(&self, node: &Node<'a>, path: &str) -> Option<&'a RawValue> {
        match node {
            Node::Leaf => None,
            Node::List(items) => {
                let (place, rest) = path.split_once('.').map_or((path, None), |(place, rest)| (place, Some(rest)));
                let is_place = !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_digit());
                let item = *items.get(place.parse::<usize>().ok().filter(|_| is_place)?)?;
                match rest {
                    None => Some(item).filter(is_something),
                    Some(rest) => self.below(&self.node(item), rest),
                }
            }
            Node::Object { fields, has_dots: false } => match path.split_once('.') {
                None => fields.get(path).filter(is_something),
                Some((first, rest)) => self.below(&self.node(fields.get(first)?), rest),
            },
            Node::Object { fields, has_dots: true } => {
                let whole = fields.get(path).filter(is_something);
                let mut splits = path.rmatch_indices('.').filter_map(|(dot, _)| {
                    let value = fields.get(&path[..dot])?;
                    self.below(&self.node(value), &path[dot + 1..])
                });
                whole.or_else(|| splits.next())
            }
        }
    }

    fn node(&self, value: &'a RawValue) -> Rc<Node<'a>> {
        let place = value.get().as_ptr() as usize;
        if let Some((_, node)) = self.nodes.borrow().iter().find(|(known, _)| *known == place) {
            return Rc::clone(node);
        }
        let node = Rc::new(Node::read(value));
        // As many as paths have parts, which the program and the site choose, not the alert.
        self.nodes.borrow_mut().push((place, Rc::clone(&node)));
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_nested_dotted_and_list_values() {
        let text = r#"{"a": {"b.c": {"d": "1"}, "b": {"c": {"d": "2", "e": 3}}}, "x.y": {"z": "4"}, "x": {"y.z": "5", "y.w": "6"},
            "list": [{"ip": "7"}, ["8", null]], "none": null, "empty": "", "a.none": "9", "n.1": "10"}"#;
        let document = Document::read(text).unwrap();
        let at = |path: &str| document.at(path).and_then(|field| field.word().map(Cow::into_owned));
        for (path, value) in [
            ("a.b.c.d", Some("1")),
            ("a.b.c.e", Some("3")),
            ("x.y.z", Some("4")),
            ("x.y.w", Some("6")),
            ("list.0.ip", Some("7")),
            ("list.1.0", Some("8")),
            ("list.1.1", None),
            ("list.2", None),
            ("list.+0.ip", None),
            ("list", None),
            ("none", None),
            ("empty", None),
            ("a.none", Some("9")),
            ("n.1", Some("10")),
            ("a.b.c.d.e", None),
            ("", None),
        ] {
            assert_eq!(at(path).as_deref(), value, "{path}");
        }
    }

    #[test]
    fn of_several_fields_with_one_key_the_last_counts_however_many_there_are() {
        for more in [0, MANY_FIELDS, 5000] {
            let others: String = (0..more).map(|n| format!("\"other{n}\": {n},")).collect();
            let text = format!(r#"{{"a": "1", {others} "a": {{"b": "2"}}}}"#);
            let document = Document::read(&text).unwrap();
            assert_eq!(document.at("a.b").and_then(Field::text).as_deref(), Some("2"), "{more}");
            assert!(document.at("a.c").is_none() && document.at("nothing").is_none());
            assert_eq!(document.at("other0").is_some(), more > 0);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_causes_a_panic(path in "[a-c.0-2]{0,12}", text in r#"\{("[ab.]{0,3}":(\[\]|\{"a":\[1,"x"\]\}|null|"c")){0,1}\}"#) {
            if let Ok(document) = Document::read(&text) {
                let _ = document.at(&path);
            }
        }
    }
}
