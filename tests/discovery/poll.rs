use crate::{secs, set};
use futures::StreamExt;
use outgrow::balance::discover::{DiscoveryError, Found, PollSource, Refresh};
use outgrow::env::{Env, Tick};
use outgrow::sim::World;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server says to each question, in turn; then it hangs.
#[derive(Clone, Copy)]
enum Says {
    Set(&'static str, u64),
    Error,
    Nothing,
}

/// Asks a server that says this; gives the time of each question, and what came of it.
fn run(seed: u64, refresh: Refresh, says: &'static [Says], items: usize) -> (Vec<f64>, Vec<Result<usize, String>>) {
    let world = World::new(seed);
    let env = world.env();
    let asked: Arc<Mutex<Vec<Tick>>> = Arc::default();
    let ask = {
        let (env, asked) = (env.clone(), Arc::clone(&asked));
        move || {
            let n = {
                let mut asked = asked.lock().unwrap();
                asked.push(env.now());
                asked.len() - 1
            };
            answer(env.clone(), says[n])
        }
    };
    let source = PollSource::new(ask).refresh(refresh).timeout(secs(3)).env(env);
    let items = world.run(source.stream().take(items).collect::<Vec<_>>());
    let items = items
        .into_iter()
        .map(|item| item.map(|set| set.len()).map_err(|error| error.to_string()));
    let asked = asked.lock().unwrap();
    let gaps = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    (gaps.collect(), items.collect())
}

async fn answer(env: Env, says: Says) -> Result<Found, DiscoveryError> {
    match says {
        Says::Set(names, ttl) => Ok(Found::new(set(names)).ttl(secs(ttl))),
        Says::Error => Err(DiscoveryError::other("refused")),
        Says::Nothing => {
            env.sleep(Duration::MAX).await;
            unreachable!("nobody waits that long")
        }
    }
}

#[test]
fn it_asks_again_when_the_answer_is_over_and_speaks_when_there_is_news() {
    use Says::{Error, Nothing, Set};
    let says = &[
        Set("a", 7),
        Set("a", 0),
        Set("a b", 9_000),
        Error,
        Error,
        Nothing,
        Set("a b", 7),
    ];
    let (gaps, items) = run(1, Refresh::default(), says, 6);
    let bounds = [
        (7.0, 7.7),     // the time to live, and up to a tenth more
        (5.0, 5.5),     // the floor
        (300.0, 330.0), // the ceiling
        (0.5, 1.0),     // the first failure
        (1.0, 2.0),     // the second
        (5.0, 7.0),     // the third, which took three seconds
    ];
    assert_eq!(gaps.len(), bounds.len());
    for (gap, (least, most)) in gaps.iter().zip(bounds) {
        assert!((least..=most).contains(gap), "{gap} in {gaps:?}");
    }
    let refused = || Err("refused".to_owned());
    let hung = Err("no answer within 3s".to_owned());
    // The second answer is no news; the last one is, since it follows a failure.
    assert_eq!(items, [Ok(1), Ok(2), refused(), refused(), hung, Ok(2)]);
}

#[test]
fn one_seed_is_one_course() {
    use Says::{Error, Set};
    let gaps = |seed| {
        run(
            seed,
            Refresh::default(),
            &[Set("a", 7), Error, Set("b", 7), Set("c", 7)],
            4,
        )
        .0
    };
    assert_eq!(gaps(1), gaps(1));
    assert_ne!(gaps(1), gaps(2));
}
