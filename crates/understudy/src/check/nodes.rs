//! ElastiCache nodes: memory and price, to say which one would hold the data.
//!
//! Prices are on-demand, in US dollars an hour, in us-east-1, as the AWS Price List (service AmazonElastiCache, family
//! Cache Instance) had them on 2026-10-02. Memory is what the columns of aws.amazon.com/elasticache/pricing say, in GiB.

/// When the prices were read.
pub(super) const PRICES_OF: &str = "on-demand, us-east-1, AWS Price List of 2026-10-02";
/// Hours of a month, as AWS counts them.
const HOURS: f64 = 730.0;
/// What ElastiCache keeps for itself by default (reserved-memory-percent).
const RESERVED: f64 = 0.25;

/// A type of node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) memory_gib: f64,
    redis_hour: f64,
    valkey_hour: f64,
}

const fn node(name: &'static str, memory_gib: f64, redis_hour: f64, valkey_hour: f64) -> Node {
    Node {
        name,
        memory_gib,
        redis_hour,
        valkey_hour,
    }
}

/// The types of the current generation, burstable, general and memory-optimised.
const NODES: &[Node] = &[
    node("cache.t4g.micro", 0.5, 0.016, 0.0128),
    node("cache.t4g.small", 1.37, 0.032, 0.0256),
    node("cache.t4g.medium", 3.09, 0.065, 0.052),
    node("cache.m7g.large", 6.38, 0.158, 0.1264),
    node("cache.m7g.xlarge", 12.93, 0.315, 0.252),
    node("cache.m7g.2xlarge", 26.04, 0.629, 0.5032),
    node("cache.m7g.4xlarge", 52.82, 1.257, 1.0056),
    node("cache.m7g.8xlarge", 103.68, 2.514, 2.0112),
    node("cache.m7g.12xlarge", 157.12, 3.77, 3.016),
    node("cache.m7g.16xlarge", 209.55, 5.028, 4.0224),
    node("cache.r7g.large", 13.07, 0.219, 0.1752),
    node("cache.r7g.xlarge", 26.24, 0.437, 0.3496),
    node("cache.r7g.2xlarge", 52.82, 0.873, 0.6984),
    node("cache.r7g.4xlarge", 105.81, 1.745, 1.396),
    node("cache.r7g.8xlarge", 209.55, 3.491, 2.7928),
    node("cache.r7g.12xlarge", 317.77, 5.235, 4.188),
    node("cache.r7g.16xlarge", 423.48, 6.981, 5.5848),
];

impl Node {
    /// Dollars a month: Redis OSS, Valkey.
    pub(super) fn month(&self) -> (f64, f64) {
        (self.redis_hour * HOURS, self.valkey_hour * HOURS)
    }

    /// Whether its processor and its link run on credits.
    pub(super) fn is_burstable(&self) -> bool {
        self.name.starts_with("cache.t")
    }

    fn usable_bytes(&self) -> f64 {
        self.memory_gib * f64::from(1 << 30) * (1.0 - RESERVED)
    }
}

/// The cheapest node that holds so much beside what is reserved, or the largest and how many of them.
pub(super) fn that_holds(bytes: u64) -> (Node, u64) {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes = bytes as f64;
    let fitting = NODES.iter().filter(|node| node.usable_bytes() >= bytes);
    let cheapest = fitting.min_by(|a, b| a.valkey_hour.total_cmp(&b.valkey_hour));
    if let Some(node) = cheapest {
        return (*node, 1);
    }
    let largest = NODES
        .iter()
        .max_by(|a, b| a.memory_gib.total_cmp(&b.memory_gib))
        .copied()
        .unwrap_or(node("cache.r7g.16xlarge", 423.48, 6.981, 5.5848));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number of shards"
    )]
    let shards = (bytes / largest.usable_bytes()).ceil() as u64;
    (largest, shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_that_fits() {
        let gib = |n: u64| n << 30;
        assert_eq!(that_holds(1 << 20).0.name, "cache.t4g.micro");
        assert_eq!(that_holds(gib(1)).0.name, "cache.t4g.small");
        assert_eq!(that_holds(gib(8)).0.name, "cache.r7g.large");
        // An m7g.large would be 4.8 GiB.
        assert_eq!(that_holds(gib(4)).0.name, "cache.m7g.large");
        let (node, shards) = that_holds(gib(1000));
        assert_eq!((node.name, shards), ("cache.r7g.16xlarge", 4));
    }

    #[test]
    fn valkey_costs_four_fifths() {
        for node in NODES {
            let (redis, valkey) = node.month();
            assert!((valkey / redis - 0.8).abs() < 1e-3, "{}", node.name);
        }
    }
}
