//! A source file as a flat list of tokens that know their line, and whether only tests compile them.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::collections::BTreeSet;

/// One file of the package.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    /// Files and folders, relative to the package, that this one declares as modules for tests only.
    pub(crate) test_modules: BTreeSet<String>,
}

/// A word, a mark (`::` is one) or a bracket.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// An identifier or keyword, and not a literal that looks like one.
    pub(crate) word: bool,
    /// Compiled for tests only.
    pub(crate) test: bool,
    /// How many inline modules of this file are around it.
    pub(crate) inline: usize,
}

/// A path such as `crate::log::Log`, with the groups of a `use` multiplied out.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) test: bool,
    pub(crate) inline: usize,
}

impl Source {
    /// # Panics
    /// When `text` is not Rust.
    pub(crate) fn parse(path: &str, text: &str) -> Source {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut flat = Flat {
            folder: module_folder(path),
            tokens: Vec::new(),
            test_modules: BTreeSet::new(),
        };
        flat.stream(stream, false, 0);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens: flat.tokens,
            test_modules: flat.test_modules,
        }
    }

    /// Whether this file is one of the modules that a source declared for tests only.
    pub(crate) fn is_in(&self, test_modules: &BTreeSet<String>) -> bool {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        test_modules.iter().any(|module| {
            stem.strip_prefix(module.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The modules from the crate's root down to this file: `src/log/frame.rs` is `["log", "frame"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" {
            Vec::new()
        } else {
            path.split('/').collect()
        }
    }

    /// All paths, those of one segment too.
    pub(crate) fn names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.tokens[at].word {
                at = self.name(at, &[], &mut names);
            } else {
                at += 1;
            }
        }
        names
    }

    /// Reads the path that starts at the word `at`, below `prefix`; returns where it ends.
    fn name(&self, at: usize, prefix: &[String], names: &mut Vec<Name>) -> usize {
        let first = &self.tokens[at];
        let mut segments = prefix.to_vec();
        segments.push(first.text.clone());
        let mut at = at + 1;
        while self.is(at, "::") {
            match self.tokens.get(at + 1) {
                Some(next) if next.word => {
                    segments.push(next.text.clone());
                    at += 2;
                }
                Some(next) if next.text == "{" => return self.group(at + 2, &segments, names),
                Some(next) if next.text == "*" => {
                    segments.push(next.text.clone());
                    at += 2;
                }
                _ => break,
            }
        }
        names.push(Name {
            segments,
            line: first.line,
            test: first.test,
            inline: first.inline,
        });
        at
    }

    /// Reads `a, b::c, d::{e, f}}`, all below `prefix`; returns where it ends.
    fn group(&self, mut at: usize, prefix: &[String], names: &mut Vec<Name>) -> usize {
        while at < self.tokens.len() && !self.is(at, "}") {
            if self.tokens[at].word {
                at = self.name(at, prefix, names);
            } else {
                at += 1;
            }
        }
        at + 1
    }

    /// Whether the token `at` is `text`.
    pub(crate) fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }
}

/// Where the files of a file's child modules are: `src/log` for `src/log/mod.rs`, `src/log/frame` for
/// `src/log/frame.rs`, `src` for `src/lib.rs`.
fn module_folder(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

struct Flat {
    folder: String,
    tokens: Vec<Token>,
    test_modules: BTreeSet<String>,
}

impl Flat {
    fn stream(&mut self, stream: TokenStream, mut test: bool, inline: usize) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        // Where the item that a test attribute stands before ends.
        let mut test_until = 0;
        for (at, tree) in trees.iter().enumerate() {
            if let Some(attribute) = attribute(&trees, at)
                && says_test(attribute.0)
            {
                if attribute.1 {
                    test = true;
                } else {
                    test_until = test_until.max(end_of_item(&trees, at));
                }
            }
            let here = test || at < test_until;
            self.tree(&trees, at, tree, here, inline);
        }
    }

    fn tree(&mut self, trees: &[TokenTree], at: usize, tree: &TokenTree, test: bool, inline: usize) {
        let module = (1..=2).all(|back| at >= back) && is_word(&trees[at - 2], "mod");
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                self.push(open, group.span_open().start().line, false, test, inline);
                let deeper = module && group.delimiter() == Delimiter::Brace;
                self.stream(group.stream(), test, inline + usize::from(deeper));
                self.push(close, group.span_close().start().line, false, test, inline);
            }
            TokenTree::Ident(ident) => self.push(&ident.to_string(), ident.span().start().line, true, test, inline),
            TokenTree::Literal(literal) => {
                self.push(&literal.to_string(), literal.span().start().line, false, test, inline);
            }
            TokenTree::Punct(punct) => {
                if module && test && punct.as_char() == ';' {
                    let name = trees[at - 1].to_string();
                    self.test_modules.insert(format!("{}/{name}", self.folder));
                }
                let colon = |tree: &TokenTree| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
                if punct.as_char() == ':' && at > 0 && colon(&trees[at - 1]) {
                    self.tokens.last_mut().expect("the first colon was pushed").text = "::".to_owned();
                } else {
                    self.push(
                        &punct.as_char().to_string(),
                        punct.span().start().line,
                        false,
                        test,
                        inline,
                    );
                }
            }
        }
    }

    fn push(&mut self, text: &str, line: usize, word: bool, test: bool, inline: usize) {
        self.tokens.push(Token {
            text: text.to_owned(),
            line,
            word,
            test,
            inline,
        });
    }
}

/// The content of the attribute that starts at `at`, and whether it is an inner one (`#![..]`).
fn attribute(trees: &[TokenTree], at: usize) -> Option<(TokenStream, bool)> {
    let mark =
        |at: usize, mark: char| matches!(trees.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == mark);
    if !mark(at, '#') {
        return None;
    }
    let inner = mark(at + 1, '!');
    match trees.get(at + 1 + usize::from(inner)) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some((group.stream(), inner)),
        _ => None,
    }
}

/// Whether an attribute's content is `test`, `cfg(test)` or `cfg(all(.., test, ..))`.
fn says_test(content: TokenStream) -> bool {
    let trees: Vec<TokenTree> = content.into_iter().collect();
    let inside = |tree: &TokenTree| match tree {
        TokenTree::Group(group) => group.stream().into_iter().collect(),
        _ => Vec::new(),
    };
    match &trees[..] {
        [only] => is_word(only, "test"),
        [cfg, group] if is_word(cfg, "cfg") => match &inside(group)[..] {
            [only] => is_word(only, "test"),
            [all, group] if is_word(all, "all") => inside(group).iter().any(|tree| is_word(tree, "test")),
            _ => false,
        },
        _ => false,
    }
}

/// Where the item ends whose first attribute starts at `at`: past its body or its semicolon, or, for what is no item
/// (a field, an arm), past its comma.
fn end_of_item(trees: &[TokenTree], mut at: usize) -> usize {
    while attribute(trees, at).is_some() {
        at += 2;
    }
    let item = matches!(&trees.get(at), Some(TokenTree::Ident(word)) if ITEMS.contains(&word.to_string().as_str()));
    for (end, tree) in trees.iter().enumerate().skip(at) {
        let ends = match tree {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';' || (punct.as_char() == ',' && !item),
            _ => false,
        };
        if ends {
            return end + 1;
        }
    }
    trees.len()
}

const ITEMS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "use",
];

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}
