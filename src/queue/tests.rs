//! What the durable queue promises beyond the suite.

use super::suite::{self, Subject};
use super::*;
use crate::env::Env;
use crate::sim::World;
use std::cell::Cell;

#[test]
fn the_suite_holds() {
    let world = World::new(1);
    let (env, made) = (world.env(), Cell::new(0));
    world.run(suite::queue(async || {
        made.set(made.get() + 1);
        let queue = DurableQueue::builder().env(env.clone());
        let queue = queue.open(format!("queue-{}", made.get())).await.unwrap();
        let env: Env = env.clone();
        Subject::new(queue, move |by| env.sleep(by))
    }));
}
