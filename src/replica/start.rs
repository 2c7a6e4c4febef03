//! Opening a store, and starting one of its nodes again.

use super::actor::Actor;
use super::builder::{Node, ReplicatedStoreBuilder};
use super::choose::{Formation, Memory, form};
use super::meta::{Found, Meta};
use super::node::{Message, Slot};
use super::open::Opened;
use super::shared::{Options, Shared};
use super::{ReplicatedStore, choose};
use crate::env::Env;
use crate::log::LogOptions;
use crate::store::{Effect, Error, LogId, Result};
use crate::sync::Ordering;
use futures::channel::{mpsc, oneshot};
use futures::future::join_all;
use std::sync::Arc;

/// Opens every node, decides what they are together, and brings a primary into office.
pub(super) async fn open(builder: ReplicatedStoreBuilder) -> Result<ReplicatedStore> {
    let ReplicatedStoreBuilder {
        env,
        nodes,
        link,
        options,
    } = builder;
    let mut names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    names.sort();
    let opened = nodes.iter().map(|node| {
        let env = node.env.clone().unwrap_or_else(|| env.clone());
        open_node(env, &node.name, &names, &options)
    });
    let opened = join_all(opened).await;
    if let ([Err(error)], _) | (_, Some(error)) = (&opened[..], opened.iter().find_map(misuse)) {
        return Err(error.clone());
    }
    let memories: Vec<Memory> = opened.iter().flatten().map(Opened::memory).collect();
    let whys = || nodes.iter().zip(&opened).filter_map(why).collect::<Vec<_>>().join("; ");
    if let ([node], [Ok(Opened { damage: Some(what), .. })]) = (&nodes[..], &opened[..]) {
        let what = format!("node {:?}: {what}", node.name);
        return Err(Error::Corrupt { what });
    }
    let formation = form(&memories, nodes.len()).map_err(|error| no_formation(&error, &whys()))?;
    let log = match formation {
        Formation::Existing(log) | Formation::New(Some(log)) => log,
        Formation::New(None) => LogId::random(&mut env.rng("log id")),
    };
    let is_new = matches!(formation, Formation::New(_));
    let highest = memories.iter().map(Memory::promised).max().unwrap_or(0);
    let options = Arc::new(options);
    let slots = nodes.iter().map(|node| Slot::new(node.name.clone(), node.tags.clone()));
    let shared = Arc::new(Shared::new(env, log, options, link, slots.collect()));
    shared.highest.store(highest, Ordering::Relaxed);
    let whys = whys();
    let starts = opened.into_iter().enumerate().map(|(node, opened)| {
        let shared = &shared;
        async move {
            let started = match opened {
                Ok(opened) => shared.start(node, opened, is_new).await,
                Err(error) => Err(error),
            };
            if let Err(error) = started {
                shared.slots[node].report.lock().why = Some(error.to_string());
            }
        }
    });
    join_all(starts).await;
    let deadline = shared.env.now() + shared.options.failover_timeout;
    let db = ReplicatedStore::of(Arc::clone(&shared));
    match shared.change_primary(None, deadline).await {
        Ok(_) => Ok(db),
        Err(error) => {
            db.close().await;
            Err(with_reasons(error, &whys))
        }
    }
}

async fn open_node(env: Env, name: &str, nodes: &[String], options: &Options) -> Result<Opened> {
    // Space is freed by whole segments, so they are a fraction of what is kept.
    let segment_bytes = (options.checkpoint_bytes / 4).clamp(8 << 10, 64 << 20);
    let log = LogOptions {
        segment_bytes,
        ..LogOptions::default()
    };
    let mut opened = Opened::open(env, options.dir.join(name), log).await?;
    if let Found::Meta(meta) = &opened.meta
        && (meta.name != name || meta.nodes != nodes)
    {
        let what = format!(
            "the directory of node {name:?} belongs to node {:?} of {:?}",
            meta.name, meta.nodes
        );
        return Err(Error::Invalid { what });
    }
    if opened.is_new {
        opened.damage = None;
    }
    Ok(opened)
}

/// An error that leaving a node out would only hide.
fn misuse(opened: &Result<Opened>) -> Option<&Error> {
    opened
        .as_ref()
        .err()
        .filter(|error| matches!(error, Error::Invalid { .. }))
}

fn why((node, opened): (&Node, &Result<Opened>)) -> Option<String> {
    let why = match opened {
        Ok(opened) => opened.damage.clone()?,
        Err(error) => error.to_string(),
    };
    Some(format!("node {:?}: {why}", node.name))
}

fn no_formation(error: &choose::NoFormation, whys: &str) -> Error {
    let what = format!("{error} ({whys})");
    match error {
        choose::NoFormation::Mixed(..) => Error::Invalid { what },
        _ => Error::Unavailable {
            what,
            effect: Effect::None,
        },
    }
}

fn with_reasons(error: Error, whys: &str) -> Error {
    match error {
        Error::Unavailable { what, effect } if !whys.is_empty() => Error::Unavailable {
            what: format!("{what} ({whys})"),
            effect,
        },
        error => error,
    }
}

impl Opened {
    fn memory(&self) -> Memory {
        match &self.meta {
            Found::Meta(meta) => Memory::Membership {
                log: meta.log,
                promised: meta.promised,
            },
            _ if self.is_new => Memory::New,
            Found::Nothing | Found::Damaged => Memory::Lost,
        }
    }
}

impl Meta {
    async fn write_down(&self, opened: &Opened) -> Result<()> {
        let written = self.write(&opened.env, &opened.dir).await;
        written.map_err(|e| Error::io(&e, Effect::None))
    }
}

impl Memory {
    fn promised(&self) -> u64 {
        match self {
            Memory::Membership { promised, .. } => *promised,
            Memory::New | Memory::Lost => 0,
        }
    }
}

impl Shared {
    /// Starts a node that has been opened. In a store that is new, it takes part from the beginning; else it has to have
    /// all that it is known to have had.
    async fn start(self: &Arc<Shared>, node: usize, opened: Opened, is_new: bool) -> Result<()> {
        let slot = &self.slots[node];
        let highest = self.highest.load(Ordering::Relaxed);
        let meta = match &opened.meta {
            Found::Meta(meta) if meta.log != self.log => {
                let what = format!("the directory of node {:?} belongs to log {}", slot.name, meta.log);
                return Err(Error::Invalid { what });
            }
            Found::Meta(meta) => {
                let known = slot.report.lock().clone();
                let held = known.durable;
                let has_all = opened.last >= held.seq && opened.history.at(held.seq) == held;
                let sound = opened.damage.is_none() && has_all && meta.promised >= known.promised;
                Meta {
                    promised: if sound { meta.promised } else { highest },
                    voter: meta.voter && sound,
                    installing: 0,
                    ..meta.clone()
                }
            }
            Found::Nothing | Found::Damaged => Meta {
                log: self.log,
                nodes: self.names(),
                name: slot.name.clone(),
                promised: if is_new { 0 } else { highest },
                voter: is_new,
                installing: 0,
            },
        };
        if opened.replaces_log {
            opened.clear_log().await?;
            meta.write_down(&opened).await?;
        } else {
            // Also when nothing has changed: what was read may have been in a cache only.
            meta.write_down(&opened).await?;
            if opened.log.range().end <= opened.last {
                opened.clear_log().await?;
            }
        }
        let life = {
            let mut report = slot.report.lock();
            report.life += 1;
            report.why = None;
            report.life
        };
        let (door, inbox) = mpsc::unbounded();
        slot.live.store(Some(Arc::clone(&opened.live)));
        let env = opened.env.clone();
        let actor = Actor::new(opened, meta, node, life, self);
        *slot.door.write() = Some(door);
        env.spawn(actor.run(inbox)).detach();
        Ok(())
    }

    /// Stops a node if it runs, opens it anew in `env`, and lets the primary know.
    pub(super) async fn restart(self: &Arc<Shared>, name: &str, env: Env) -> Result<()> {
        let node = self.node(name)?;
        let _control = self.control.lock().await;
        if self.topology().closed {
            return Err(Error::unavailable("the store is closed", Effect::None));
        }
        self.stop(node).await;
        let opened = open_node(env, name, &self.names(), &self.options).await?;
        self.start(node, opened, false).await?;
        for slot in &self.slots {
            // Only the primary has use for it.
            let _not_there = slot.send(Message::Back(node));
        }
        self.moved.wake_all();
        Ok(())
    }

    /// Every node's name, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.slots.iter().map(|slot| slot.name.clone()).collect();
        names.sort();
        names
    }

    /// Stops a node, if it runs.
    pub(super) async fn stop(&self, node: usize) {
        let slot = &self.slots[node];
        let (reply, closed) = oneshot::channel();
        if slot.send(Message::Close(reply)).is_ok() {
            // One whose machine dies meanwhile has stopped too.
            let _result = closed.await;
        }
        *slot.door.write() = None;
    }
}
