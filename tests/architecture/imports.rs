//! The modules of a package and what they use of each other, read from the text. It follows
//! declarations of modules from the crate's root, as the compiler does. An import leads to the file
//! that defines the item, also through re-exports. Unit tests are left out, and macros are not
//! expanded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::root;

/// A path as it is written: `crate::store::Db` is three words.
type Words = Vec<String>;

/// A name that a `use` brings into a module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Words,
    /// The last word of the path or the word after `as`; `*` for all names of a module.
    pub(crate) name: String,
    pub(crate) is_public: bool,
}

/// What the text of one module says.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) imports: Vec<Import>,
    /// Paths in expressions and types, such as `crate::clock::now`.
    pub(crate) paths: Vec<Words>,
    /// Child modules in files of their own; with the file if `#[path]` names it.
    pub(crate) children: Vec<(String, Option<String>)>,
    defined: BTreeSet<String>,
    /// Every word outside `use`.
    mentioned: BTreeSet<String>,
}

/// One module of a package.
#[derive(Debug)]
struct Module {
    /// Its files by their path from the repository's root: several if systems differ.
    files: Vec<String>,
    source: Source,
}

/// What a file uses: the other file, and the name of the item.
pub(crate) type Use = (String, String);
/// The files of a package, with what each uses.
pub(crate) type Uses = BTreeMap<String, BTreeSet<Use>>;

/// The modules of one crate by their path from its root.
#[derive(Debug, Default)]
pub(crate) struct Modules(BTreeMap<Words, Module>);

impl Modules {
    /// Reads the crate whose root is the file `entry`.
    pub(crate) fn read(entry: &str) -> Self {
        let mut modules = Self::default();
        modules.add(Vec::new(), &root().join(entry), true);
        modules
    }

    /// Builds a crate from texts, each with the path of its module.
    pub(crate) fn of(texts: &[(&str, &str)]) -> Self {
        let module = |(path, text): &(&str, &str)| {
            let words: Words = path.split("::").filter(|word| !word.is_empty()).map(str::to_owned).collect();
            (words, Module { files: vec![(*path).to_owned()], source: Source::read(text) })
        };
        Self(texts.iter().map(module).collect())
    }

    fn add(&mut self, path: Words, file: &Path, owns_folder: bool) {
        let text = std::fs::read_to_string(file).unwrap();
        let source = Source::read(&text);
        let beside = file.parent().unwrap();
        let folder = if owns_folder { beside.to_owned() } else { beside.join(path.last().unwrap()) };
        for (child, named) in &source.children {
            let below = [path.as_slice(), std::slice::from_ref(child)].concat();
            let flat = folder.join(format!("{child}.rs"));
            match named {
                // The compiler reads the children of such a file as those of a `mod.rs`.
                Some(named) => self.add(below, &without_dots(&beside.join(named)), true),
                None if flat.exists() => self.add(below, &flat, false),
                None => self.add(below, &folder.join(child).join("mod.rs"), true),
            }
        }
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        match self.0.get_mut(&path) {
            Some(module) => {
                module.files.push(name);
                module.source.imports.extend(source.imports);
                module.source.paths.extend(source.paths);
                module.source.defined.extend(source.defined);
                module.source.mentioned.extend(source.mentioned);
            }
            None => drop(self.0.insert(path, Module { files: vec![name], source })),
        }
    }

    /// Returns for each file the other files of the crate that it uses. A re-export that the file
    /// itself does not use is no use: it is a declaration, as `mod` is.
    pub(crate) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (path, module) in &self.0 {
            let source = &module.source;
            let mut used: BTreeSet<Use> = BTreeSet::new();
            for import in &source.imports {
                if !import.is_public || import.name == "*" || source.mentioned.contains(&import.name) {
                    let files = self.files_of(path, &import.path, 0).into_iter();
                    used.extend(files.map(|file| (file, import.name.clone())));
                }
                let opened = self.module_of(path, &import.path).filter(|_| import.name == "*" && !import.is_public);
                let files = opened.map(|opened| self.0[&opened].files.clone()).into_iter().flatten();
                used.extend(files.map(|file| (file, "*".to_owned())));
            }
            for words in &source.paths {
                let files = self.files_of(path, words, 0).into_iter();
                used.extend(files.map(|file| (file, words.join("::"))));
            }
            used.retain(|(other, _)| !module.files.contains(other));
            for file in &module.files {
                uses.entry(file.clone()).or_default().extend(used.iter().cloned());
            }
        }
        uses
    }

    /// Returns the files that define what `words` names in the module `from`. Empty if it is a
    /// module itself, or is in another crate.
    fn files_of(&self, from: &Words, words: &[String], depth: usize) -> Vec<String> {
        // Imports can refer to each other in a circle.
        if depth > 8 {
            return Vec::new();
        }
        let Some((mut module, mut rest)) = self.start(from, words) else { return Vec::new() };
        while let Some((first, after)) = rest.split_first() {
            let child = [module.as_slice(), std::slice::from_ref(first)].concat();
            if self.0.contains_key(&child) {
                (module, rest) = (child, after);
                continue;
            }
            let Some(here) = self.0.get(&module) else { return Vec::new() };
            if let Some(import) = here.source.imports.iter().find(|import| import.name == *first) {
                return self.files_of(&module, &[import.path.as_slice(), after].concat(), depth + 1);
            }
            if !here.source.defined.contains(first) {
                for import in here.source.imports.iter().filter(|import| import.name == "*") {
                    let opened = self.module_of(&module, &import.path);
                    if let Some(opened) = opened.filter(|opened| self.0[opened].source.defined.contains(first)) {
                        return self.0[&opened].files.clone();
                    }
                }
            }
            return here.files.clone();
        }
        Vec::new()
    }

    /// Returns the module that `words` names in the module `from`, if it is one.
    fn module_of(&self, from: &Words, words: &[String]) -> Option<Words> {
        let (mut module, rest) = self.start(from, words)?;
        module.extend(rest.iter().cloned());
        self.0.contains_key(&module).then_some(module)
    }

    /// Splits `words` into the module where its search starts and what is left of it; `None` if it
    /// starts in another crate.
    fn start<'a>(&self, from: &Words, words: &'a [String]) -> Option<(Words, &'a [String])> {
        let (first, after) = words.split_first()?;
        match first.as_str() {
            "crate" => Some((Vec::new(), after)),
            "self" => Some((from.clone(), after)),
            "super" => {
                let ups = words.iter().take_while(|word| *word == "super").count();
                Some((from[..from.len().checked_sub(ups)?].to_vec(), &words[ups..]))
            }
            _ => {
                let here = &self.0.get(from)?.source;
                let is_child = here.children.iter().any(|(child, _)| child == first);
                let child = [from.as_slice(), std::slice::from_ref(first)].concat();
                if is_child || self.0.contains_key(&child) {
                    return Some((child, after));
                }
                here.imports
                    .iter()
                    .any(|import| import.name == *first && import.path[0] != *first)
                    .then(|| (from.clone(), words))
            }
        }
    }
}

/// Removes `..` from a path.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

impl Source {
    /// Reads the text of a module.
    pub(crate) fn read(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut source = Self::default();
        let mut named = None;
        let mut at = 0;
        let token = |at: usize| tokens.get(at).map_or("", String::as_str);
        while at < tokens.len() {
            match token(at) {
                "path" if token(at + 1) == "=" && token(at + 2).starts_with('"') => {
                    named = Some(token(at + 2).trim_matches('"').to_owned());
                }
                "mod" if token(at + 2) == ";" => source.children.push((token(at + 1).to_owned(), named.take())),
                // `use<'a>` is a bound.
                "use" if token(at + 1) != "<" => {
                    let is_public = at > 0 && ["pub", ")"].contains(&token(at - 1));
                    at = source.read_use(&tokens, at + 1, &[], is_public);
                    continue;
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                    source.defined.insert(token(at + 1).to_owned());
                }
                "macro_rules" => {
                    source.defined.insert(token(at + 2).to_owned());
                }
                _ => {}
            }
            if is_word(token(at)) {
                source.mentioned.insert(token(at).to_owned());
                let is_start = at == 0 || !["::", "."].contains(&token(at - 1));
                if is_start && token(at + 1) == "::" {
                    let mut path = vec![token(at).to_owned()];
                    while token(at + 1) == "::" && is_word(token(at + 2)) {
                        at += 2;
                        path.push(token(at).to_owned());
                        source.mentioned.insert(token(at).to_owned());
                    }
                    source.paths.push(path);
                }
            }
            at += 1;
        }
        source
    }

    /// Reads the tree of a `use` from `at`, below `before`; returns where it ends.
    fn read_use(&mut self, tokens: &[String], mut at: usize, before: &[String], is_public: bool) -> usize {
        let mut path = before.to_vec();
        let mut name = None;
        while at < tokens.len() {
            match tokens[at].as_str() {
                "::" => {}
                "{" => {
                    at += 1;
                    while tokens[at] != "}" {
                        at = self.read_use(tokens, at, &path, is_public);
                        if tokens[at] == "," {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                "as" => {
                    at += 1;
                    name = Some(tokens[at].clone());
                }
                "*" => name = Some("*".to_owned()),
                // `a::{self}` names the module itself.
                "self" if !path.is_empty() => {}
                word if is_word(word) => path.push(word.to_owned()),
                _ => break,
            }
            at += 1;
        }
        if let Some(last) = path.last().cloned() {
            self.imports.push(Import { path, name: name.unwrap_or(last), is_public });
        }
        at
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits code into words, `::`, strings in quotes and single signs, without comments, characters
/// and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hashes = rest.trim_start_matches(['b', 'r']).chars().take_while(|c| *c == '#').count();
        let raw = format!("r{}\"", "#".repeat(hashes));
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with(&raw) || rest.starts_with(&format!("b{raw}")) {
            let open = rest.find('"').unwrap() + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
        } else if first == '"' || rest.starts_with("b\"") {
            let open = rest.find('"').unwrap() + 1;
            let length = open + end_of_string(&rest[open..]);
            tokens.push(rest[open - 1..length].to_owned());
            length
        } else if first == '\'' {
            length_of_quote(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            tokens.push(rest[..length].to_owned());
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of a string after its first quote, with its last quote.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of a character in quotes, or 1 for the quote of a lifetime.
fn length_of_quote(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some(_)) => characters.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Removes the items that only tests compile.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let both = ["#", "[", "cfg", "(", "all", "(", "test"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let here = &tokens[at..];
        let is_test = here.len() > mark.len() && (here[..mark.len()] == mark || here[..both.len()] == both);
        if is_test {
            at += length_of_item(here);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Returns the length of an item with its attributes: up to its `;` or its last brace, or up to the
/// comma of a field.
fn length_of_item(tokens: &[String]) -> usize {
    let mut depth = 0_usize;
    let mut is_code = false;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "(" | "[" | "{" => {
                is_code |= depth == 0 && token == "{";
                depth += 1;
            }
            ")" | "]" | "}" => {
                // The end of what holds a last field.
                if depth == 0 {
                    return at;
                }
                depth -= 1;
                if depth == 0 && token == "}" && is_code && tokens.get(at + 1).is_none_or(|next| next != ";") {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && !tokens[..at].iter().any(|token| ["impl", "fn"].contains(&token.as_str())) => {
                return at + 1;
            }
            _ => {}
        }
    }
    tokens.len()
}
