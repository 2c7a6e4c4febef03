//! A shop whose store changes from memory to Redis by one line: `open` below is all that knows which it is. Two
//! processes' worth of it run side by side, each with a cache of its own, and see what the other sells.
//! `cargo run --features redis --example swap_store`, or with `-- --redis redis://127.0.0.1/` on a server of yours
#![allow(clippy::print_stdout, reason = "a program, not a library")]

use futures::TryStreamExt;
use outgrow::cache::{InvalidationBus, LocalBus, RedisBus, Tiered};
use outgrow::env::Env;
use outgrow::store::{Batch, BoxStore, Error, Expect, LocalStore, RedisStore, Scan, Store, StoreExt};
use std::time::Duration;

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// Where the shop keeps what it knows: in memory, or on the Redis server at an address.
async fn open(redis: Option<&str>) -> Answer<BoxStore> {
    Ok(match redis {
        None => LocalStore::in_memory().boxed(),
        Some(url) => RedisStore::builder(url).prefix("shop:").connect().await?.boxed(),
    })
}

/// One process of the shop. It knows a store, and not which.
struct Shop {
    store: Tiered<BoxStore>,
}

impl Shop {
    async fn start(store: BoxStore, bus: impl InvalidationBus + 'static) -> Answer<Shop> {
        let store = Tiered::builder(store).bus(bus).ttl(Duration::from_secs(60));
        Ok(Shop {
            store: store.build().await?,
        })
    }

    async fn stock(&self, product: &str, pieces: i64) -> Answer<()> {
        self.store.put(format!("stock/{product}"), pieces.to_string()).await?;
        Ok(())
    }

    async fn left(&self, product: &str) -> Answer<i64> {
        let entry = self.store.read(format!("stock/{product}").as_bytes()).await?;
        Ok(entry.map_or(Ok(0), |entry| {
            std::str::from_utf8(&entry.value).unwrap_or_default().parse()
        })?)
    }

    /// Waits until so many are left: at once for what this process sold, else until the bus has told.
    async fn wait_for(&self, product: &str, pieces: i64) -> Answer<()> {
        while self.left(product).await? != pieces {
            Env::default().sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Sells one piece, unless the last is gone: the stock, the count of sales and the reservation change as one, and
    /// only if the stock is still what was read.
    async fn sell(&self, product: &str, customer: &str) -> Answer<bool> {
        let key = format!("stock/{product}");
        loop {
            // What is sold must be there, so this reads past the cache.
            let Some(entry) = self.store.store().read(key.as_bytes()).await? else {
                return Ok(false);
            };
            if entry.value == "0" {
                return Ok(false);
            }
            let sale = Batch::new()
                .expect(key.clone(), Expect::At(entry.version))
                .add(key.clone(), -1)
                .add(format!("sold/{product}"), 1)
                .put_for(format!("reserved/{product}/{customer}"), "1", Duration::from_secs(900));
            match self.store.commit(sale).await {
                Ok(_) => return Ok(true),
                Err(Error::Conflict { .. }) => {} // Somebody else was faster: look again.
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn reservations(&self, product: &str) -> Answer<usize> {
        let range = Scan::prefix(format!("reserved/{product}/"));
        Ok(self.store.scan(range).try_collect::<Vec<_>>().await?.len())
    }
}

/// Two processes sell the same seven pieces to ten customers.
pub(crate) async fn run(redis: Option<&str>) -> Answer<()> {
    let (first, second) = match redis {
        None => {
            let (store, bus) = (open(None).await?, LocalBus::new());
            (
                Shop::start(store.clone(), bus.clone()).await?,
                Shop::start(store, bus).await?,
            )
        }
        Some(url) => {
            let bus = async || RedisBus::builder(url).channel("shop:changes").connect().await;
            let first = Shop::start(open(redis).await?, bus().await?).await?;
            (first, Shop::start(open(redis).await?, bus().await?).await?)
        }
    };
    let product = format!("lamp-{}", std::process::id());
    first.stock(&product, 7).await?;
    second.wait_for(&product, 7).await?;
    // Those who only look are answered from memory.
    for _ in 0..100 {
        assert_eq!(second.left(&product).await?, 7);
    }

    let customers: Vec<String> = (0..10).map(|n| format!("customer-{n}")).collect();
    let sales = customers.iter().enumerate().map(|(n, customer)| {
        let shop = if n % 2 == 0 { &first } else { &second };
        shop.sell(&product, customer)
    });
    let sold = futures::future::try_join_all(sales).await?;
    assert_eq!(
        sold.iter().filter(|sold| **sold).count(),
        7,
        "no piece is sold twice, and none is left"
    );
    for shop in [&first, &second] {
        shop.wait_for(&product, 0).await?;
        assert_eq!(shop.reservations(&product).await?, 7);
    }
    let stats = second.store.stats();
    println!(
        "7 of {product} sold to 10 customers by two processes on {}; the second was told of {} keys, and answered {} \
         reads from memory",
        redis.map_or("a store in memory", |_| "Redis"),
        stats.invalidations_heard,
        stats.cache.hits,
    );
    assert!(stats.invalidations_heard > 0 && stats.cache.hits > 0);

    // The shop leaves the store as it found it.
    for range in ["stock/", "sold/", "reserved/"] {
        let found: Vec<_> = first
            .store
            .scan(Scan::prefix(format!("{range}{product}")))
            .try_collect()
            .await?;
        let batch = found
            .into_iter()
            .fold(Batch::new(), |batch, (key, _)| batch.delete(key));
        first.store.commit(batch).await?;
    }
    first.store.close().await;
    second.store.close().await;
    Ok(())
}

#[allow(dead_code, reason = "a test runs the rest on a server of its own")]
#[tokio::main]
async fn main() -> Answer<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => run(None).await,
        [name, url] if name == "--redis" => run(Some(url)).await,
        _ => Err("usage: swap_store [--redis redis://HOST:PORT/]".into()),
    }
}
