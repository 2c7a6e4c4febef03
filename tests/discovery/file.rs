use crate::{ids, pool, secs, status};
use futures::StreamExt;
use outgrow::balance::Pool;
use outgrow::balance::RoundRobin;
use outgrow::balance::discover::{DiscoveryState, FileSource, OnEmpty};
use outgrow::env::{Env, OpenMode, read_exact_at, write_all_at};
use outgrow::sim::{DiskOp, Inject, World};
use std::path::Path;
use std::time::Duration;

const PATH: &str = "backends";

/// A pool that follows the file of a machine, which is not there yet.
fn following(world: &World, on_empty: OnEmpty) -> Pool<RoundRobin> {
    let env = world.env();
    let pool = pool(&env);
    let file = FileSource::new(PATH).interval(secs(2)).env(env.clone());
    env.spawn(pool.follow(file.stream()).source(PATH).on_empty(on_empty))
        .detach();
    pool
}

/// Writes a file as an editor does that knows no better: in place.
async fn write(env: &Env, text: &str) {
    let path = Path::new(PATH);
    let file = match env.disk().open(path, OpenMode::New).await {
        Ok(file) => file,
        Err(_) => env.disk().open(path, OpenMode::Existing).await.unwrap(),
    };
    file.set_len(0).await.unwrap();
    write_all_at(&*file, text.as_bytes(), 0).await.unwrap();
}

#[test]
fn edits_are_followed_and_mistakes_named() {
    let world = World::new(1);
    let env = world.env();
    let pool = following(&world, OnEmpty::Keep);
    world.run_for(secs(5));
    let now = status(&pool);
    assert_eq!(now.state, DiscoveryState::Failing);
    let error = now.last_error.unwrap();
    assert!(error.starts_with("backends: "), "{error}");

    let text = "10.0.0.1:80 weight=2 zone=a priority=1 meta.version=7\n10.0.0.2:80\n";
    world.run(write(&env, text));
    world.run_for(secs(3));
    assert_eq!(ids(&pool), ["10.0.0.1:80", "10.0.0.2:80"]);
    let first = &pool.status().endpoints[0];
    assert_eq!((first.weight, first.zone.as_deref(), first.priority), (2, Some("a"), 1));
    assert_eq!(status(&pool).sets, 1);

    world.run_for(secs(60));
    assert_eq!(status(&pool).sets, 1, "the same text is no news");

    world.run(write(&env, "10.0.0.3:80\n10.0.0.4:80 wieght=3\n"));
    world.run_for(secs(3));
    assert_eq!(ids(&pool), ["10.0.0.1:80", "10.0.0.2:80"]);
    let now = status(&pool);
    let error = now.last_error.unwrap();
    assert_eq!(error, "backends:2: `wieght` is not weight, zone, priority or meta.NAME");
    assert!(now.failures >= 2);

    world.run(write(&env, "10.0.0.3:80\n10.0.0.4:80 weight=3\n"));
    world.run_for(secs(3));
    assert_eq!(ids(&pool), ["10.0.0.3:80", "10.0.0.4:80"]);
    assert_eq!(status(&pool).state, DiscoveryState::Current);
}

#[test]
fn the_same_text_after_a_failed_read_is_news_again() {
    let world = World::new(2);
    let env = world.env();
    world.run(write(&env, "a\n"));
    let pool = following(&world, OnEmpty::Keep);
    world.run_for(secs(1));
    assert_eq!(ids(&pool), ["a"]);
    world.machine("main").inject(DiskOp::Read, 0, Inject::Fail);
    world.run_for(Duration::from_millis(2_400));
    assert_eq!(status(&pool).failures, 1);
    world.run_for(secs(3));
    let now = status(&pool);
    assert_eq!((now.state, now.sets), (DiscoveryState::Current, 2));
}

#[test]
fn none_must_be_said_twice() {
    for (choice, left) in [(OnEmpty::Keep, 1), (OnEmpty::Apply, 0)] {
        let world = World::new(3);
        let env = world.env();
        world.run(write(&env, "a\n"));
        let pool = following(&world, choice);
        world.run_for(secs(1));
        // An empty file names nobody by mistake, whatever is chosen for empty sets.
        world.run(write(&env, "# nothing yet\n"));
        world.run_for(secs(5));
        assert_eq!(ids(&pool), ["a"]);
        assert!(status(&pool).last_error.unwrap().contains("the line `none`"));
        world.run(write(&env, "none\n"));
        world.run_for(secs(5));
        assert_eq!(ids(&pool).len(), left);
    }
}

/// A writer that is slow, and stops for a while anywhere, is not taken for one that is done, as long as it stops for less
/// than the settle time; and nothing it does half empties the pool.
#[test]
fn half_a_file_is_not_read_as_a_whole_one() {
    let texts = ["a1\na2 weight=3\na3 zone=x\n", "b1 priority=1\nb2\nb3\n"];
    let sets = [["a1", "a2", "a3"], ["b1", "b2", "b3"]];
    for seed in 0..40 {
        let world = World::new(seed);
        let env = world.env();
        let mut rng = world.rng("writer");
        world.run(write(&env, texts[0]));
        let file = FileSource::new(PATH)
            .interval(Duration::from_millis(50))
            .env(env.clone());
        let pool = pool(&env);
        env.spawn(pool.follow(file.stream()).on_empty(OnEmpty::Apply)).detach();
        world.run_for(secs(1));
        let mut seen = vec![ids(&pool)];
        for round in 1..6 {
            let file = world.run(env.disk().open(Path::new(PATH), OpenMode::Existing)).unwrap();
            world.run(file.set_len(0)).unwrap();
            for (at, byte) in texts[round % 2].bytes().enumerate() {
                world.run_for(Duration::from_millis(rng.below(90)));
                world.run(file.write_at(&[byte], at as u64)).unwrap();
                let now = ids(&pool);
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            world.run_for(secs(1));
            assert_eq!(ids(&pool), sets[round % 2]);
        }
        assert!(
            seen.iter().all(|set| *set == sets[0] || *set == sets[1]),
            "seed {seed}: {seen:?}"
        );
    }
}

/// A program that runs may be read and not written to, not even by the superuser.
#[test]
fn a_file_that_may_not_be_written_to_can_be_read() {
    let program = std::env::current_exe().unwrap();
    let env = Env::system();
    let open = |mode| futures::executor::block_on(env.disk().open(&program, mode));
    assert!(open(OpenMode::Existing).is_err());
    let file = open(OpenMode::Read).unwrap();
    let mut magic = [0; 4];
    futures::executor::block_on(read_exact_at(&*file, &mut magic, 0)).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    // What such a file says is a mistake in its first line, and no refusal to open it.
    let mut sets = Box::pin(FileSource::new(&program).env(env.clone()).stream());
    let error = futures::executor::block_on(sets.next()).unwrap().unwrap_err();
    assert!(!error.to_string().contains("busy"), "{error}");
}
