//! A link to a part of a page leads to a heading of that page. `paths.rs` checks that the page
//! exists.

use std::collections::HashMap;
use std::path::Path;

use crate::{root, texts};

/// The lines of a Markdown text outside its fenced blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fence && !is_fenced
    });
    lines.collect()
}

/// Returns the anchors of a page, as a code host and mdbook derive them from its headings.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (_, line) in prose(text) {
        let Some((hashes, heading)) = line.split_once(' ') else { continue };
        if hashes.is_empty() || hashes.chars().any(|hash| hash != '#') {
            continue;
        }
        // Of a link in a heading, its text counts.
        let mut parts = heading.split("](");
        let mut heading = parts.next().unwrap_or_default().to_lowercase();
        heading.extend(parts.filter_map(|part| part.split_once(')')).map(|(_, rest)| rest.to_lowercase()));
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let times = seen.entry(anchor.clone()).or_default();
        found.push(if *times == 0 { anchor.clone() } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    found
}

/// Returns the links of a page that name an anchor: line, page (empty for the same), anchor.
fn links(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for link in line.split("](").skip(1) {
            let target = link.split([')', ' ']).next().unwrap_or_default();
            if let Some((page, anchor)) = target.split_once('#')
                && !page.contains(':')
                && (page.is_empty() || Path::new(page).extension().is_some_and(|kind| kind == "md"))
            {
                found.push((number, page, anchor));
            }
        }
    }
    found
}

#[test]
fn links_lead_to_headings() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (file, text) in texts(".", &["md"]) {
        for (line, page, anchor) in links(&text) {
            seen += 1;
            let goal = if page.is_empty() {
                text.clone()
            } else {
                // A page that is not there has no heading.
                std::fs::read_to_string(root().join(&file).parent().unwrap().join(page)).unwrap_or_default()
            };
            if !anchors(&goal).iter().any(|one| one == anchor) {
                wrong.push(format!("{file}:{line}: {page}#{anchor}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these links lead to no heading:\n{}", wrong.join("\n"));
    assert!(seen > 100, "only {seen} links were found: this test no longer finds them");
}

#[test]
fn this_test_sees_a_link_to_no_heading() {
    let text =
        "# A page\n## `when`: it's [so](x.md) (yes)\n```sh\n# not a heading\n[no](#link)\n```\n## A page\n#no heading";
    assert_eq!(anchors(text), ["a-page", "when-its-so-yes", "a-page-1"]);
    let text = "[a](#b) [c](d.md#e), [f](g.md) [h](https://i#j)\n```\n[k](l.md#m)\n```\n[n](../o.md#p \"q\")";
    assert_eq!(links(text), [(1, "", "b"), (1, "d.md", "e"), (5, "../o.md", "p")]);
}
