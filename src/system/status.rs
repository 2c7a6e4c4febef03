use std::collections::BTreeMap;
use std::fmt;

/// A system at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SystemStatus {
    /// That of its worst block.
    pub health: Health,
    /// Every block, in the order in which they were added.
    pub blocks: Vec<NamedStatus>,
}

/// A block's name, with how it is.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NamedStatus {
    /// The name that the system knows it by.
    pub name: String,
    /// What kind of block it is.
    pub kind: String,
    /// How it is.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub status: BlockStatus,
}

/// How one block is.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BlockStatus {
    /// Whether it does its work.
    pub health: Health,
    /// What is wrong, when something is.
    pub reason: Option<String>,
    /// Its figures by name.
    pub figures: BTreeMap<String, f64>,
}

/// Whether a block does its work, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Health {
    /// It does.
    #[default]
    Ready,
    /// It does, with less than it should have: one more loss may stop it.
    Degraded,
    /// It does not.
    Down,
}

impl SystemStatus {
    pub(super) fn new(blocks: Vec<NamedStatus>) -> SystemStatus {
        let health = blocks.iter().map(|block| block.status.health).max().unwrap_or_default();
        SystemStatus { health, blocks }
    }

    /// The block called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NamedStatus> {
        self.blocks.iter().find(|block| block.name == name)
    }
}

impl BlockStatus {
    /// A block without figures yet.
    #[must_use]
    pub fn new(health: Health) -> BlockStatus {
        BlockStatus {
            health,
            reason: None,
            figures: BTreeMap::new(),
        }
    }

    /// Says what is wrong.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> BlockStatus {
        self.reason = Some(reason.into());
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn figure(mut self, name: impl Into<String>, value: f64) -> BlockStatus {
        self.figures.insert(name.into(), value);
        self
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Health::Ready => "ready",
            Health::Degraded => "degraded",
            Health::Down => "down",
        })
    }
}

/// One line for each block.
impl fmt::Display for SystemStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .blocks
            .iter()
            .map(|block| block.name.chars().count())
            .max()
            .unwrap_or(0);
        for (i, NamedStatus { name, kind, status }) in self.blocks.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{name:width$}  {:8}  {kind}:", status.health)?;
            for (figure, value) in &status.figures {
                write!(f, " {figure} {value}")?;
            }
            if let Some(reason) = &status.reason {
                write!(f, " ({reason})")?;
            }
        }
        Ok(())
    }
}
