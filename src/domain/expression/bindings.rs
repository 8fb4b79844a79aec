//! An alert's fields as CEL values: its own and the normalised ones. Built once per alert for all
//! expressions, at first use, and only the fields that they read ([`FieldRefs`]). Texts are borrowed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::field_refs::{EVERYTHING, FieldRefs};
use super::functions;
use crate::domain::alert::{Alert, Observable};

/// Maximum length of a list in an expression; with one level of macros, this bounds the steps per
/// macro.
pub(super) const MAX_LIST: usize = 256;
/// Top-level names of an alert that an expression may use; others are available under `alert`.
pub(super) const NAMES: [&str; 18] = [
    "age",
    "agent",
    "alert",
    "cluster",
    "data",
    "decoder",
    "destination",
    "file",
    "full_log",
    "location",
    "manager",
    "pipeline",
    "predecoder",
    "process",
    "rule",
    "source",
    "syscheck",
    "time",
];

/// CEL's functions, shared by all evaluations: building them costs more than most conditions.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    #[expect(clippy::expect_used, reason = "the crate is built without functions of these names")]
    functions::declare(&mut environment).expect("each function is declared once");
    Arc::new(environment)
});

type Any<'a> = Box<dyn Val + 'a>;
type Fields<'a> = HashMap<CelMapKey<'a>, Any<'a>>;

/// How numeric strings are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    AsWritten,
    FromText,
}

/// The values of one alert.
pub struct Bindings<'a> {
    alert: &'a Alert,
    raw: &'a str,
    field_refs: &'a FieldRefs,
    as_written: OnceLock<CelMap<'a>>,
    from_text: OnceLock<CelMap<'a>>,
    time: OnceLock<CelString<'static>>,
}

impl<'a> Bindings<'a> {
    /// Prepares `alert` with its decoded text `raw` ([`decode`](crate::domain::decode::decode)),
    /// for expressions that read at most `field_refs`.
    pub fn new(alert: &'a Alert, raw: &'a str, field_refs: &'a FieldRefs) -> Self {
        Self { alert, raw, field_refs, as_written: OnceLock::new(), from_text: OnceLock::new(), time: OnceLock::new() }
    }

    /// An empty alert, for trying an expression.
    pub(super) fn sample() -> Bindings<'static> {
        static NOTHING: LazyLock<Alert> = LazyLock::new(Alert::default);
        Bindings::new(&NOTHING, "{}", &EVERYTHING)
    }

    /// The values with one treatment of numeric strings.
    pub(super) fn seen(&self, numbers: Numbers) -> BindingsView<'_, 'a> {
        let made = match numbers {
            Numbers::AsWritten => &self.as_written,
            Numbers::FromText => &self.from_text,
        };
        BindingsView { bindings: self, fields: made.get_or_init(|| self.make(numbers).into()) }
    }

    fn make(&self, numbers: Numbers) -> Fields<'a> {
        let mut json = serde_json::Deserializer::from_str(self.raw);
        let own = Reading { field_refs: self.field_refs, numbers }.deserialize(&mut json);
        let own = own.ok().filter(|_| json.end().is_ok());
        let mut fields = if let Some(Made::Object(fields)) = own { fields } else { Fields::new() };
        for name in ["source", "destination", "file", "rule"] {
            let Some(field_refs) = self.field_refs.below(name) else { continue };
            let own = fields.remove(&CelMapKey::from(name));
            let own = own.and_then(|own| own.downcast_ref::<CelMap>().cloned());
            let mut merged = own.map(CelMap::into_inner).unwrap_or_default();
            let normalised = self.normalised(name).into_iter().filter(|(field, _)| field_refs.below(field).is_some());
            merged.extend(normalised.map(|(field, value)| (field.into(), value)));
            fields.insert(name.into(), Box::new(CelMap::from(merged)));
        }
        fields.insert("pipeline".into(), text(&self.alert.pipeline));
        fields
    }

    /// The normalised fields below `name`, which override the alert's own.
    fn normalised(&self, name: &str) -> Vec<(&'static str, Any<'a>)> {
        let observables = &self.alert.observables;
        let of = |fields: &[(&'static str, &'a Option<Observable>)]| {
            let present = fields.iter().filter_map(|(name, field)| Some((*name, text(&field.as_ref()?.value))));
            present.collect()
        };
        match name {
            "source" => of(&[("ip", &observables.source_ip), ("user", &observables.source_user)]),
            "destination" => of(&[("ip", &observables.destination_ip), ("user", &observables.destination_user)]),
            "file" => of(&[("path", &observables.file_path)]),
            _ => {
                let rule = &self.alert.rule;
                let groups: Vec<Any> = rule.groups.iter().take(MAX_LIST).map(|group| text(group)).collect();
                vec![
                    ("id", text(&rule.id)),
                    ("level", Box::new(CelInt::from(i64::from(rule.level)))),
                    ("groups", Box::new(CelList::from(groups))),
                ]
            }
        }
    }
}

fn text(text: &str) -> Any<'_> {
    Box::new(CelString::from(text))
}

/// The values by name.
pub(super) struct BindingsView<'f, 'a> {
    bindings: &'f Bindings<'a>,
    fields: &'f CelMap<'a>,
}

impl BindingsView<'_, '_> {
    /// The evaluation context.
    pub(super) fn context(&self) -> Context<'_, '_> {
        let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
        context.set_variable_resolver(self);
        context
    }
}

impl VariableResolver for BindingsView<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == "alert" {
            return Some(CowVal::Borrowed(self.fields));
        }
        let alert = self.bindings.alert;
        match name {
            "time" => return Some(CowVal::Borrowed(self.bindings.time.get_or_init(|| alert.time.to_string().into()))),
            "age" => return Some(CowVal::owned(CelInt::from(alert.age_secs()))),
            _ => {}
        }
        let name = NAMES.iter().find(|known| **known == name)?;
        // A missing parent is empty, so that `has()` on it is not an error.
        let empty = || CowVal::owned(CelMap::default());
        Some(self.fields.get(&CelMapKey::from(*name)).map_or_else(empty, |value| CowVal::Borrowed(value.as_ref())))
    }
}

/// Converts JSON to CEL values on demand. Every whole number is an `int`, because CEL cannot add an
/// `int` and a `uint`.
#[derive(Clone, Copy)]
struct Reading<'r> {
    field_refs: &'r FieldRefs,
    numbers: Numbers,
}

impl Reading<'_> {
    fn text(self, text: Cow<'_, str>) -> Made<'_> {
        match text.parse::<i64>() {
            Ok(number) if self.numbers == Numbers::FromText && number.to_string() == text => {
                Made::Other(Box::new(CelInt::from(number)))
            }
            _ => Made::Other(Box::new(CelString::from(text))),
        }
    }
}

/// A converted value.
enum Made<'a> {
    Object(Fields<'a>),
    Other(Any<'a>),
}

impl<'a> Made<'a> {
    fn value(self) -> Any<'a> {
        match self {
            Self::Object(fields) => Box::new(CelMap::from(fields)),
            Self::Other(value) => value,
        }
    }
}

/// A key, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Made<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Made<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Made<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Made<'de>, E> {
        Ok(Made::Other(Box::new(CelNull)))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Made<'de>, E> {
        Ok(Made::Other(Box::new(CelBool::from(truth))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Made<'de>, E> {
        Ok(Made::Other(Box::new(CelInt::from(number))))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Made<'de>, E> {
        #[expect(clippy::cast_precision_loss, reason = "beyond an int there is only the nearest float")]
        i64::try_from(number).map_or_else(|_| self.visit_f64(number as f64), |number| self.visit_i64(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Made<'de>, E> {
        Ok(Made::Other(Box::new(CelDouble::from(number))))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Made<'de>, E> {
        Ok(self.text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Made<'de>, E> {
        Ok(self.text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Made<'de>, A::Error> {
        // Paths cannot enter a list, so an expression that reads a list reads all of it.
        let whole = Reading { field_refs: &EVERYTHING, ..self };
        let mut list = Vec::new();
        while list.len() < MAX_LIST
            && let Some(item) = items.next_element_seed(whole)?
        {
            list.push(item.value());
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Made::Other(Box::new(CelList::from(list))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Made<'de>, A::Error> {
        let mut fields = Fields::new();
        while let Some(Name(name)) = entries.next_key()? {
            match self.field_refs.below(&name) {
                Some(field_refs) => {
                    let value = entries.next_value_seed(Reading { field_refs, ..self })?.value();
                    fields.insert(CelMapKey::String(name.into()), value);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Made::Object(fields))
    }
}
