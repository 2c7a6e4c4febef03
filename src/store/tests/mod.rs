//! Tests of the room as a whole, and those too long to stand beside their subject.

mod conformance;
mod decorators;
mod lies;
mod local;
mod memory;
mod script;

use super::suite::{self, Subject};
use super::{BoxStore, LocalStore, MemoryEngine};
use crate::env::Env;
use crate::sim::World;
use futures::future::BoxFuture;

/// Runs the suite over what `make` makes. All stores are boxed and `make` is no type parameter, so that the compiler
/// makes one copy of the suite for all tests.
pub(crate) fn conforms(make: &dyn Fn(&Env) -> BoxFuture<'static, BoxStore>) {
    let world = World::new(1);
    let env = world.env();
    world.run(suite::store(async || {
        let sleeper = env.clone();
        Subject::new(make(&env).await, move |by| sleeper.sleep(by))
    }));
}

/// A store in memory in the world of `env`, whose followers may be seven records behind.
fn local(env: &Env) -> LocalStore<MemoryEngine> {
    LocalStore::builder(MemoryEngine::new())
        .env(env.clone())
        .feed(7)
        .build()
}
