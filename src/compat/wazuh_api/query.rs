//! The parameters `q`, `sort`, `select` and `search` of Wazuh's API, for the list of agents. They are read
//! as a whole: what is not understood is an error with Wazuh's number, and never left out.
//!
//! A query is conditions such as `os.name=linux`, joined by `;` (and) and `,` (or), with parentheses.
//! "And" binds closer. Texts are compared without case, one of `<` and `>` character by character.

use super::fields::{AgentField, FIELDS, FieldValue};
use crate::views::wazuh::WazuhAgent;

/// Parentheses in each other, at most.
const DEPTH: usize = 16;
/// Conditions of a query, at most.
const CONDITIONS: usize = 256;

/// Why a parameter is refused, and Wazuh's number of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFault {
    /// 1403: `sort` is not read.
    #[error("Sort field invalid: {0}")]
    Sort(String),
    /// 1407: `q` is not of the form.
    #[error("Query does not match expected format: {0}")]
    Format(String),
    /// 1408: `q` names an unknown field.
    #[error("Field does not exist: {0}")]
    Field(String),
    /// 1409: `q` has an unknown operator.
    #[error("Invalid query operator: {0}")]
    Operator(String),
    /// 1412: a time is compared with something else.
    #[error("Date filter not valid: {0}")]
    Date(String),
    /// 1724: `select` names an unknown field.
    #[error("Not a valid select field: {0}")]
    Select(String),
}

impl QueryFault {
    /// Wazuh's number.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Sort(_) => 1403,
            Self::Format(_) => 1407,
            Self::Field(_) => 1408,
            Self::Operator(_) => 1409,
            Self::Date(_) => 1412,
            Self::Select(_) => 1724,
        }
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Format(_) => {
                "Conditions such as name=web are joined by ; (and) and , (or), with parentheses".to_owned()
            }
            Self::Operator(_) => "Operators are = != < > ~".to_owned(),
            Self::Date(_) => "A time is YYYY-MM-DD or YYYY-MM-DD HH:MM:SS".to_owned(),
            Self::Sort(_) | Self::Field(_) | Self::Select(_) => {
                format!("Fields are {}", FIELDS.map(|field| field.name).join(", "))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    Greater,
    Like,
}

/// A query over agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentQuery {
    /// Every one holds.
    All(Vec<AgentQuery>),
    /// At least one holds.
    Any(Vec<AgentQuery>),
    /// One condition.
    Condition(AgentCondition),
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCondition {
    field: AgentField,
    operator: Operator,
    /// In lower case.
    value: String,
}

impl AgentQuery {
    /// Reads `q`.
    ///
    /// # Errors
    /// The first fault.
    pub fn read(text: &str) -> Result<Self, QueryFault> {
        let mut reader = Reader { rest: text, depth: 0, conditions: 0 };
        let query = reader.any()?;
        if reader.rest.is_empty() { Ok(query) } else { Err(reader.wrong()) }
    }

    /// Whether an agent is meant.
    pub fn holds(&self, agent: &WazuhAgent) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(agent)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(agent)),
            Self::Condition(condition) => condition.holds(agent),
        }
    }
}

impl AgentCondition {
    fn holds(&self, agent: &WazuhAgent) -> bool {
        let value = self.field.of(agent);
        // As in a database: a field without a value meets no condition.
        if value == FieldValue::Absent {
            return false;
        }
        let is_equal = |text: &&str| match (&value, self.value.parse::<u64>()) {
            (FieldValue::Number(number, _), Ok(wanted)) => *number == wanted,
            _ => text.to_lowercase() == self.value,
        };
        let order = |text: &&str| match (&value, self.value.parse::<u64>()) {
            (FieldValue::Number(number, _), Ok(wanted)) => number.cmp(&wanted),
            _ => text.to_lowercase().as_str().cmp(self.value.as_str()),
        };
        let texts = value.texts();
        match self.operator {
            Operator::Equal => texts.iter().any(is_equal),
            Operator::Unequal => !texts.iter().any(is_equal),
            Operator::Less => texts.iter().any(|text| order(text).is_lt()),
            Operator::Greater => texts.iter().any(|text| order(text).is_gt()),
            Operator::Like => texts.iter().any(|text| text.to_lowercase().contains(&self.value)),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    conditions: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self) -> QueryFault {
        QueryFault::Format(match shortened(self.rest).as_str() {
            "" => "it ends too early".to_owned(),
            rest => format!("at '{rest}'"),
        })
    }

    fn takes(&mut self, mark: char) -> bool {
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn any(&mut self) -> Result<AgentQuery, QueryFault> {
        let mut parts = vec![self.all()?];
        while self.takes(',') {
            parts.push(self.all()?);
        }
        Ok(AgentQuery::Any(parts))
    }

    fn all(&mut self) -> Result<AgentQuery, QueryFault> {
        let mut parts = vec![self.one()?];
        while self.takes(';') {
            parts.push(self.one()?);
        }
        Ok(AgentQuery::All(parts))
    }

    fn one(&mut self) -> Result<AgentQuery, QueryFault> {
        if self.takes('(') {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err(QueryFault::Format(format!("more than {DEPTH} parentheses are in each other")));
            }
            let inner = self.any()?;
            self.depth -= 1;
            return if self.takes(')') { Ok(inner) } else { Err(self.wrong()) };
        }
        self.conditions += 1;
        if self.conditions > CONDITIONS {
            return Err(QueryFault::Format(format!("it has more than {CONDITIONS} conditions")));
        }
        self.condition().map(AgentQuery::Condition)
    }

    /// Takes the characters of which the rest begins.
    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !belongs(character)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn condition(&mut self) -> Result<AgentCondition, QueryFault> {
        let begun = self.rest;
        let name = self.word(|character| character.is_ascii_alphanumeric() || "._".contains(character));
        let sign = self.word(|character| "=!<>~".contains(character));
        if name.is_empty() || sign.is_empty() {
            self.rest = begun;
            return Err(self.wrong());
        }
        let field = AgentField::named(name).ok_or_else(|| QueryFault::Field(shortened(name)))?;
        let operator = match sign {
            "=" => Operator::Equal,
            "!=" => Operator::Unequal,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            "~" => Operator::Like,
            _ => return Err(QueryFault::Operator(shortened(sign))),
        };
        let value = self.word(|character| !";,()".contains(character) && !character.is_control());
        if value.trim().is_empty() {
            self.rest = begun;
            return Err(self.wrong());
        }
        let value = if field.is_time() && operator != Operator::Like {
            time(value).ok_or_else(|| QueryFault::Date(shortened(value)))?
        } else {
            value.to_lowercase()
        };
        Ok(AgentCondition { field, operator, value })
    }
}

/// A time as the fields have it, as far as it is given: they are compared as texts. A span such as `7d` is
/// refused, because it is not clear which of both times is to be earlier.
fn time(text: &str) -> Option<String> {
    const FORM: &str = "dddd-dd-dd dd:dd:dd";
    let plain = text.strip_suffix(['Z', 'z']).unwrap_or(text).replacen(['T', 't'], " ", 1);
    let fits = plain.len() == FORM.len() || plain.len() == "dddd-dd-dd".len();
    let is_form = plain.chars().zip(FORM.chars()).all(|(given, form)| match form {
        'd' => given.is_ascii_digit(),
        mark => given == mark,
    });
    (fits && plain.is_ascii() && is_form).then(|| plain.replacen(' ', "t", 1))
}

/// A text that is shown again: its beginning.
fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(64).collect()
}

/// How a list is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOrder {
    fields: Vec<AgentField>,
    is_falling: bool,
}

impl AgentOrder {
    /// Reads `sort`: `+` or `-` for all fields, and their names.
    ///
    /// # Errors
    /// The first field that is unknown.
    pub fn read(text: &str) -> Result<Self, QueryFault> {
        // A plus sign that is not encoded arrives as a blank.
        let names = text.strip_prefix(['+', '-', ' ']).unwrap_or(text);
        let unknown = |name: &str| QueryFault::Sort(shortened(name));
        let fields = names.split(',').map(|name| AgentField::named(name).ok_or_else(|| unknown(name)));
        Ok(Self { fields: fields.collect::<Result<_, _>>()?, is_falling: text.starts_with('-') })
    }

    /// Puts agents into this order; those that are equal in it stay as they are.
    pub fn apply(&self, agents: &mut [WazuhAgent]) {
        agents.sort_by(|one, other| {
            let order = self.fields.iter().map(|field| field.order(one, other)).find(|order| order.is_ne());
            let order = order.unwrap_or(std::cmp::Ordering::Equal);
            if self.is_falling { order.reverse() } else { order }
        });
    }
}

/// Reads `select`: the fields of each item.
///
/// # Errors
/// The first field that is unknown.
pub fn read_select(text: &str) -> Result<Vec<AgentField>, QueryFault> {
    text.split(',').map(|name| AgentField::named(name).ok_or_else(|| QueryFault::Select(shortened(name)))).collect()
}

/// `search`: a text in any field, or with `-` before it in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSearch {
    text: String,
    is_complement: bool,
}

impl AgentSearch {
    /// Reads `search`.
    pub fn read(text: &str) -> Self {
        let (text, is_complement) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        Self { text: text.to_lowercase(), is_complement }
    }

    /// Whether an agent is found.
    pub fn finds(&self, agent: &WazuhAgent) -> bool {
        let is_in =
            |field: AgentField| field.of(agent).texts().iter().any(|text| text.to_lowercase().contains(&self.text));
        FIELDS.into_iter().any(is_in) != self.is_complement
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::selected;
    use super::*;
    use crate::views::wazuh::WazuhOs;

    fn agent(id: &str, name: &str) -> WazuhAgent {
        let os =
            WazuhOs { arch: "x86_64".into(), name: "Linux".into(), platform: "linux".into(), version: "12".into() };
        WazuhAgent {
            os,
            group_config_status: "synced".into(),
            last_keep_alive: (id != "099").then(|| format!("2026-11-24T10:00:{}Z", &id[1..])),
            date_add: "2026-11-24T09:00:00Z".into(),
            node_name: "riposte".into(),
            manager: "siem-1".into(),
            register_ip: "any".into(),
            ip: "any".into(),
            group: vec!["default".into(), "web".into()],
            status: if id == "099" { "never_connected" } else { "active" }.into(),
            status_code: u32::from(id == "099"),
            name: name.into(),
            id: id.into(),
            version: "Riposte v0.1.0".into(),
        }
    }

    fn agents() -> [WazuhAgent; 3] {
        [agent("005", "web-01"), agent("020", "DB-01"), agent("099", "web-02")]
    }

    #[test]
    fn a_query_means_what_wazuh_documents() {
        for (query, expected) in [
            ("id=5", &["005"][..]),
            ("id!=005", &["020", "099"]),
            ("id>9", &["020", "099"]),
            ("id<020", &["005"]),
            ("id~0", &["005", "020", "099"]),
            ("name=db-01", &["020"]),
            ("name~WEB", &["005", "099"]),
            ("os.name=LINUX;os.version>10", &["005", "020", "099"]),
            ("os.version>9", &[]),
            ("group=web", &["005", "020", "099"]),
            ("group!=web", &[]),
            ("status=never_connected,name~db", &["020", "099"]),
            // And binds closer.
            ("name~db,name~web;id=5", &["005", "020"]),
            ("(name~db,name~web);id=5", &["005"]),
            ("((id=5),(id=20;status=active))", &["005", "020"]),
            ("lastKeepAlive>2026-11-24 10:00:10", &["020"]),
            ("lastKeepAlive<2026-11-24T10:00:10Z", &["005"]),
            ("lastKeepAlive>2026-11-24", &["005", "020"]),
            ("lastKeepAlive=2026-11-24T10:00:05Z", &[]),
            ("lastKeepAlive~10:00:05", &["005"]),
            // A field without a value meets no condition.
            ("lastKeepAlive!=2026-11-24", &["005", "020"]),
            ("version=riposte v0.1.0", &["005", "020", "099"]),
            ("status_code=1", &["099"]),
        ] {
            let read = AgentQuery::read(query).unwrap();
            let found: Vec<String> =
                agents().into_iter().filter(|agent| read.holds(agent)).map(|agent| agent.id).collect();
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_wazuhs_number() {
        let deep = format!("{}id=1{}", "(".repeat(DEPTH + 1), ")".repeat(DEPTH + 1));
        let long = vec!["id=1"; CONDITIONS + 1].join(";");
        for (query, code) in [
            ("", 1407),
            ("id", 1407),
            ("=5", 1407),
            ("id=", 1407),
            ("id= ", 1407),
            ("id=1;", 1407),
            (",id=1", 1407),
            ("id=1;;id=2", 1407),
            ("(id=1", 1407),
            ("id=1)", 1407),
            ("()", 1407),
            ("(id=1)(id=2)", 1407),
            ("id=1(id=2)", 1407),
            ("id = 1", 1407),
            ("id=1\u{0}", 1407),
            (&deep, 1407),
            (&long, 1407),
            ("os.major=1", 1408),
            ("Name=web", 1408),
            ("os=linux", 1408),
            ("id==1", 1409),
            ("id>=1", 1409),
            ("id!1", 1409),
            ("lastKeepAlive>7d", 1412),
            ("dateAdd<2026", 1412),
            ("dateAdd<2026-11-24 1", 1412),
        ] {
            assert_eq!(AgentQuery::read(query).unwrap_err().code(), code, "{query}");
        }
        for wrong in ["", "-", "os", "id;name", "name,-id", "++name", "nothing"] {
            assert_eq!(AgentOrder::read(wrong).unwrap_err().code(), 1403, "{wrong}");
        }
        for wrong in ["", "os", "id,", "id, name", "nothing", "-id"] {
            assert_eq!(read_select(wrong).unwrap_err().code(), 1724, "{wrong}");
        }
    }

    #[test]
    fn agents_are_ordered_selected_and_searched() {
        let ordered = |sort: &str| {
            let mut agents = agents();
            AgentOrder::read(sort).unwrap().apply(&mut agents);
            agents.map(|agent| agent.id)
        };
        assert_eq!(ordered("name"), ["020", "005", "099"]);
        assert_eq!(ordered("+name"), ["020", "005", "099"]);
        assert_eq!(ordered(" name"), ["020", "005", "099"]);
        assert_eq!(ordered("-id"), ["099", "020", "005"]);
        assert_eq!(ordered("status,name"), ["020", "005", "099"]);
        assert_eq!(ordered("lastKeepAlive"), ["099", "005", "020"]);
        let select = read_select("id,os.name,os.arch,lastKeepAlive,group,status_code").unwrap();
        assert_eq!(
            selected(&agents()[2], &select),
            serde_json::json!({"id": "099", "os": {"name": "Linux", "arch": "x86_64"}, "group": ["default", "web"],
                "status_code": 1})
        );
        let found = |search: &str| agents().iter().filter(|agent| AgentSearch::read(search).finds(agent)).count();
        assert_eq!([found("WEB-"), found("-web-"), found("siem"), found("-siem"), found("x86")], [2, 1, 3, 0, 3]);
    }
}
