//! The fields that an expression reads, found in its syntax, so that other fields need no
//! conversion. Reading too much is only slow; too little would change results. So everything except
//! a plain path counts as the whole subtree.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// Fields of an alert, as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldRefs {
    /// The field with its whole subtree.
    Everything,
    /// Only these fields of the subtree.
    Fields(BTreeMap<String, FieldRefs>),
}

/// All fields of an alert.
pub static EVERYTHING: FieldRefs = FieldRefs::Everything;

impl Default for FieldRefs {
    fn default() -> Self {
        Self::Fields(BTreeMap::new())
    }
}

impl FieldRefs {
    /// The fields that `expression` reads.
    pub(super) fn of(expression: &IdedExpr) -> Self {
        let mut field_refs = Self::default();
        field_refs.walk(expression);
        field_refs
    }

    /// Adds the fields of `other`.
    pub fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Fields(fields), Self::Fields(others)) => {
                for (name, other) in others {
                    fields.entry(name.clone()).or_default().add(other);
                }
            }
        }
    }

    /// The fields read below `name`, if any.
    pub(super) fn below(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Everything => Some(self),
            Self::Fields(fields) => fields.get(name),
        }
    }

    fn add_path(&mut self, path: &[&str]) {
        match (&mut *self, path) {
            (Self::Everything, _) => {}
            (_, []) => *self = Self::Everything,
            (Self::Fields(fields), [first, rest @ ..]) => {
                fields.entry((*first).to_owned()).or_default().add_path(rest);
            }
        }
    }

    /// A macro's variable counts as the alert's field of that name; reading it too is harmless.
    fn walk(&mut self, node: &IdedExpr) {
        if let Some(path) = path(node) {
            // Everything is also available under `alert`.
            return self.add_path(path.strip_prefix(&["alert"]).unwrap_or(&path));
        }
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select(select) => self.walk(&select.operand),
            Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(|part| self.walk(part)),
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(element)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.walk_entry(&entry.expr)),
            Expr::Struct(object) => object.entries.iter().for_each(|entry| self.walk_entry(&entry.expr)),
            Expr::Comprehension(inner) => {
                for part in [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.walk(part);
                }
            }
        }
    }

    fn walk_entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key);
                self.walk(&entry.value);
            }
        }
    }
}

/// The names in `a.b.c` or `has(a.b.c)`; `has` needs the value as well.
fn path(node: &IdedExpr) -> Option<Vec<&str>> {
    match &node.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) => {
            let mut path = path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_refs(source: &str) -> FieldRefs {
        FieldRefs::of(cel::Program::compile(source).unwrap().expression())
    }

    fn fields(fields: &[(&str, FieldRefs)]) -> FieldRefs {
        FieldRefs::Fields(fields.iter().map(|(name, field_refs)| ((*name).to_owned(), field_refs.clone())).collect())
    }

    #[test]
    fn plain_paths_are_read_exactly_and_other_expressions_as_a_whole() {
        use FieldRefs::Everything;
        let port = || fields(&[("data", fields(&[("srcport", Everything)]))]);
        assert_eq!(field_refs("data.srcport > 1024"), port());
        assert_eq!(field_refs("has(data.srcport)"), port());
        assert_eq!(field_refs("alert.data.srcport > 1024"), port());
        assert_eq!(
            field_refs(r#"[1, data.srcport].exists(n, n > 3) || {"a": data.srcport}.a == 3"#).below("data"),
            port().below("data")
        );
        assert_eq!(field_refs(r#"data.url.contains("x")"#).below("data"), Some(&fields(&[("url", Everything)])));
        for whole in [
            "data[location] == 3",
            r#""url" in data"#,
            "size(data) > 3",
            "data.exists(key, key == location)",
            r#"data == {"url": data.url}"#,
            "(rule.level > 3 ? data : rule).level == 3",
            "alert.data == data",
        ] {
            assert_eq!(field_refs(whole).below("data"), Some(&Everything), "{whole}");
        }
        assert_eq!(field_refs(r#"alert["data"] == 3"#), Everything);
        assert_eq!(field_refs("1 < 2"), FieldRefs::default());
    }
}
