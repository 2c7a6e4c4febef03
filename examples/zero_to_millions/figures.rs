//! The modelled figures by name: reading them from TOML, checking each, listing and replacing any of them.

use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;
use toml::{Table, Value};

/// One modelled number, with the reason for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Its name: `workload.write_share`, `database.cores`.
    pub(crate) name: String,
    /// What it is set to.
    pub(crate) value: f64,
    /// Why this and not another.
    pub(crate) why: String,
}

/// A figure that must be there, and what it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its name: section or machine, a dot, and the key.
    pub(crate) name: &'static str,
    /// The least it may be.
    pub(crate) min: f64,
    /// The most it may be.
    pub(crate) max: f64,
    /// Whether it counts things that come whole.
    pub(crate) whole: bool,
}

/// Why a hardware file is refused; each names the key.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub(crate) enum HardwareError {
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("`{key}` is missing")]
    Missing { key: String },
    #[error("`{key}` is not a key of this file (is it misspelt?)")]
    Unknown { key: String },
    #[error("`{key}` is given twice")]
    Twice { key: String },
    #[error("`{key}` must be {want}, not {got}")]
    Type {
        key: String,
        want: &'static str,
        got: String,
    },
    #[error("`{key}` = {value}: must be from {min} to {max}")]
    Range {
        key: String,
        value: f64,
        min: f64,
        max: f64,
    },
    #[error("`{key}` = {value}: must be a whole number")]
    Whole { key: String, value: f64 },
}

/// All figures, each within its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    specs: &'static [Spec],
    by_name: BTreeMap<&'static str, Figure>,
}

impl Figures {
    /// Takes the figures that `specs` asks for out of `entries`; what is left there is unknown.
    ///
    /// # Errors
    /// When one is missing, of the wrong type or out of bounds, or when any is left.
    pub(crate) fn take(
        specs: &'static [Spec],
        entries: &mut BTreeMap<String, Entry>,
    ) -> Result<Figures, HardwareError> {
        let mut by_name = BTreeMap::new();
        for spec in specs {
            let key = || spec.name.to_owned();
            let entry = entries
                .remove(spec.name)
                .ok_or_else(|| HardwareError::Missing { key: key() })?;
            let value = match entry.value {
                Value::Integer(whole) => whole as f64,
                Value::Float(number) => number,
                other => return Err(wrong_type(key(), "a number", &other)),
            };
            let figure = Figure {
                name: key(),
                value: spec.check(value)?,
                why: entry.why,
            };
            by_name.insert(spec.name, figure);
        }
        match entries.pop_first() {
            Some((key, _)) => Err(HardwareError::Unknown { key }),
            None => Ok(Figures { specs, by_name }),
        }
    }

    /// The value of a figure that the specs name.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.by_name
            .get(name)
            .expect("broken invariant: every figure that is asked for has a spec")
            .value
    }

    /// All figures, in the order of their specs.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Figure> {
        self.specs.iter().filter_map(|spec| self.by_name.get(spec.name))
    }

    /// These figures with one multiplied by `factor`: kept within its bounds, and rounded away from the old value when
    /// it must be whole. `None` when there is no such figure or its bounds leave it as it is.
    pub(crate) fn scaled(&self, name: &str, factor: f64) -> Option<Figures> {
        let spec = self.specs.iter().find(|spec| spec.name == name)?;
        let old = self.get(name);
        let exact = old * factor;
        let value = match (spec.whole, factor > 1.0) {
            (false, _) => exact,
            (true, true) => exact.ceil(),
            (true, false) => exact.floor(),
        };
        let value = value.clamp(spec.min, spec.max);
        let mut scaled = self.clone();
        scaled.by_name.get_mut(spec.name)?.value = value;
        (value != old).then_some(scaled)
    }
}

impl Spec {
    fn check(&self, value: f64) -> Result<f64, HardwareError> {
        let key = self.name.to_owned();
        let Spec { min, max, .. } = *self;
        if !(min..=max).contains(&value) {
            return Err(HardwareError::Range { key, value, min, max });
        }
        if self.whole && value.fract() != 0.0 {
            return Err(HardwareError::Whole { key, value });
        }
        Ok(value)
    }
}

/// A value of the file, with its reason.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) why: String,
}

/// Flattens a file into entries by name: the keys of `[workload]` and `[distance]`, and those of each `[[machine]]` under its name.
///
/// # Errors
/// When the text is no TOML, or has another shape.
pub(crate) fn entries(text: &str) -> Result<BTreeMap<String, Entry>, HardwareError> {
    let file: Table = text.parse().map_err(|error| syntax(text, &error))?;
    let mut entries = BTreeMap::new();
    for (section, value) in file {
        match (section.as_str(), value) {
            ("workload" | "distance", Value::Table(keys)) => add(&mut entries, &section, keys)?,
            ("machine", Value::Array(machines)) => {
                for machine in machines {
                    add_machine(&mut entries, machine)?;
                }
            }
            ("workload" | "distance", other) => return Err(wrong_type(section, "a table", &other)),
            ("machine", other) => return Err(wrong_type(section, "an array of tables", &other)),
            _ => return Err(HardwareError::Unknown { key: section }),
        }
    }
    Ok(entries)
}

fn syntax(text: &str, error: &toml::de::Error) -> HardwareError {
    let start = error.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(start).filter(|&b| b == b'\n').count();
    let why: Vec<&str> = error.message().lines().collect();
    HardwareError::Syntax(format!("line {line}: {}", why.join(", ")))
}

fn add_machine(entries: &mut BTreeMap<String, Entry>, machine: Value) -> Result<(), HardwareError> {
    let Value::Table(mut keys) = machine else {
        return Err(wrong_type("machine".to_owned(), "an array of tables", &machine));
    };
    let key = || "machine.name".to_owned();
    match keys.remove("name") {
        Some(Value::String(name)) => add(entries, &name, keys),
        Some(other) => Err(wrong_type(key(), "a string", &other)),
        None => Err(HardwareError::Missing { key: key() }),
    }
}

fn add(entries: &mut BTreeMap<String, Entry>, section: &str, keys: Table) -> Result<(), HardwareError> {
    for (key, value) in keys {
        let key = format!("{section}.{key}");
        let entry = match value {
            Value::Table(table) => reasoned(&key, table)?,
            value => Entry {
                value,
                why: "no reason is given".to_owned(),
            },
        };
        if entries.insert(key.clone(), entry).is_some() {
            return Err(HardwareError::Twice { key });
        }
    }
    Ok(())
}

/// `{ value = .., why = ".." }`.
fn reasoned(key: &str, mut table: Table) -> Result<Entry, HardwareError> {
    let part = |part| format!("{key}.{part}");
    let value = table
        .remove("value")
        .ok_or_else(|| HardwareError::Missing { key: part("value") })?;
    let why = match table.remove("why") {
        Some(Value::String(why)) => why,
        Some(other) => return Err(wrong_type(part("why"), "a string", &other)),
        None => return Err(HardwareError::Missing { key: part("why") }),
    };
    match table.into_iter().next() {
        Some((unknown, _)) => Err(HardwareError::Unknown { key: part(&unknown) }),
        None => Ok(Entry { value, why }),
    }
}

pub(crate) fn wrong_type(key: String, want: &'static str, got: &Value) -> HardwareError {
    let got = match got {
        Value::Table(_) | Value::Array(_) => got.type_str().to_owned(),
        simple => format!("{} {simple}", simple.type_str()),
    };
    HardwareError::Type { key, want, got }
}
