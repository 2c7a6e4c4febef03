use super::alias::{Alias, scale, split};
use super::{next_untried, weights};
use crate::balance::{Load, Member, Request};
use crate::env::Rng;
use std::sync::Arc;

/// Draws two endpoints to choose between, evenly or in proportion to the weights.
#[derive(Debug)]
pub struct Pairs(Option<Weighted>);

/// Where not all weights are alike.
#[derive(Debug)]
struct Weighted {
    weights: Box<[u32]>,
    alias: Alias,
}

impl Pairs {
    pub(super) fn new(members: &[Member]) -> Pairs {
        Pairs(weights(members).map(|weights| Weighted {
            alias: Alias::new(&weights),
            weights,
        }))
    }

    /// Nothing when all are alike.
    #[inline]
    pub(super) fn weights(&self) -> Option<&[u32]> {
        self.0.as_ref().map(|weighted| &*weighted.weights)
    }

    /// The first of two, unless the second `beats` it by these weights. Of those that the request avoids, none while there is
    /// another.
    #[inline(always)]
    pub(super) fn pick(
        &self,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        rng: &mut Rng,
        beats: impl Fn(usize, usize, Option<&[u32]>) -> bool,
    ) -> Option<usize> {
        if !request.avoid.is_empty() || self.0.is_some() || loads.len() < 2 {
            return self.pick_with_care(loads, request, rng, beats);
        }
        let (a, b) = two(loads.len(), rng);
        Some(if beats(b, a, None) { b } else { a })
    }

    /// Where there are weights, or endpoints to avoid, or but one. Apart, so that the rest is small.
    #[inline(never)]
    fn pick_with_care(
        &self,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        rng: &mut Rng,
        beats: impl Fn(usize, usize, Option<&[u32]>) -> bool,
    ) -> Option<usize> {
        let better = |(a, b): (usize, usize)| if beats(b, a, self.weights()) { b } else { a };
        if !request.avoid.is_empty() {
            return self.pick_untried(loads, request, rng, better);
        }
        Some(better(self.draw(loads.len(), rng)))
    }

    /// Two candidates. Distinct when drawn evenly; by weight they may be one and the same, since a light endpoint that
    /// is always set against the heaviest would win more than its share.
    fn draw(&self, len: usize, rng: &mut Rng) -> (usize, usize) {
        match &self.0 {
            Some(weighted) => (weighted.alias.draw(rng), weighted.alias.draw(rng)),
            None if len < 2 => (0, 0),
            None => two(len, rng),
        }
    }

    /// Draws a few times, which finds two in a large pool; in a small one, takes the next that was not tried.
    fn pick_untried(
        &self,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        rng: &mut Rng,
        better: impl Fn((usize, usize)) -> usize,
    ) -> Option<usize> {
        let mut found = None;
        for _ in 0..DRAWS {
            let (a, b) = self.draw(loads.len(), rng);
            for i in [a, b].into_iter().filter(|&i| !request.avoids(&loads[i])) {
                match found {
                    None => found = Some(i),
                    Some(other) if other == i => {}
                    Some(other) => return Some(better((other, i))),
                }
            }
        }
        found
            .or_else(|| next_untried(loads, request, rng.index(loads.len())))
            .or_else(|| Some(better(self.draw(loads.len(), rng))))
    }
}

/// Two different ones of at least two.
#[inline(always)]
fn two(len: usize, rng: &mut Rng) -> (usize, usize) {
    let (a, bits) = split(rng.next_u64(), len);
    let b = scale(bits, len - 1);
    (a, b + usize::from(b >= a))
}

const DRAWS: usize = 4;
