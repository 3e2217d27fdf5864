//! Configuration files: any text is a configuration or a list of mistakes that
//! can be shown on a terminal.

use std::path::Path;

use adit_config::{Input, Mistakes, Paint, Where};
use adit_edge::config::EdgeConfig;
use adit_fuzz::{holds, target};

#[test]
fn edge_configurations() {
    target("server", |input| {
        let text = String::from_utf8_lossy(input);
        if let Err(mistakes) = EdgeConfig::parse(given(&text)) {
            shown(&mistakes, &text);
        }
    });
}

fn given(text: &str) -> Input<'_> {
    Input {
        text,
        file: Some(Path::new("server.toml")),
        variable: &|_| None,
        read: &|_| Err("no such file".into()),
        options: &[],
    }
}

fn shown(mistakes: &Mistakes, text: &str) {
    assert!(!mistakes.all().is_empty());
    let lines = text.lines().count() + 1;
    for mistake in mistakes.all() {
        if let Where::File { line, column, .. } = &mistake.place {
            assert!((1..=lines).contains(line) && *column > 0, "{mistake:?}");
        }
        let page = mistake.render(Paint::Plain);
        let strange = page.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(strange, None, "{page:?}");
        assert!(page.contains(&mistake.code.to_string()), "{page}");
    }
}

#[test]
fn the_corpus_has_the_example() {
    let example = include_str!("../../../examples/server.toml");
    EdgeConfig::parse(given(example)).expect("the example is right");
    holds("server", "example", example.as_bytes());
}
