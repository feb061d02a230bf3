//! PURE: the replicas of a workload for a lag.
//!
//! It scales up immediately and in proportion, at most to twice as many, as a
//! HorizontalPodAutoscaler does. It scales down by one replica at a time, after the lag has been
//! below half of its target for a while: a group without lag does not show how many members it
//! needs. It never exceeds the number of partitions, since more members would be idle.

use weir_crds::{Lag, Scaling};

/// The memory between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScaleMemory {
    /// Since when the lag is below half of its target, in milliseconds.
    pub low_since: Option<i64>,
    /// When replicas were last added, in milliseconds: new members take time to have an effect.
    pub raised_at: Option<i64>,
}

/// The least time between two increases, in milliseconds: new replicas start, join and begin to
/// consume.
const BETWEEN_RAISES_MS: i64 = 30_000;

/// The wanted replicas.
pub fn desired(
    scaling: &Scaling,
    current: i32,
    lag: &Lag,
    now_ms: i64,
    memory: &mut ScaleMemory,
) -> i32 {
    let max = scaling.max.unwrap_or(i32::MAX).min(lag.partitions.max(1)).max(scaling.min);
    let within = |replicas: i32| replicas.clamp(scaling.min, max);
    let seconds =
        lag.seconds.unwrap_or(if lag.messages > 0 { scaling.target_lag_seconds } else { 0 });
    let target = scaling.target_lag_seconds.max(1);
    if current <= 0 {
        memory.low_since = None;
        // From 0 it goes to 1: the speed of one replica is unknown.
        return if lag.messages > 0 { within(1) } else { within(0) };
    }
    if seconds.saturating_mul(2) >= target {
        memory.low_since = None;
    }
    if seconds > target {
        let early =
            memory.raised_at.is_some_and(|at| now_ms.saturating_sub(at) < BETWEEN_RAISES_MS);
        if early {
            return within(current);
        }
        let wanted = i64::from(current).saturating_mul(seconds).saturating_add(target - 1) / target;
        let wanted = i32::try_from(wanted)
            .unwrap_or(i32::MAX)
            .min(current.saturating_mul(2))
            .max(current.saturating_add(1));
        if within(wanted) > current {
            memory.raised_at = Some(now_ms);
        }
        return within(wanted);
    }
    if seconds.saturating_mul(2) < target {
        let since = *memory.low_since.get_or_insert(now_ms);
        // The last replica goes only when nothing is left to consume.
        let may = current > 1 || lag.messages == 0;
        if may
            && now_ms.saturating_sub(since) >= scaling.scale_down_after_seconds.saturating_mul(1000)
        {
            memory.low_since = Some(now_ms);
            return within(current.saturating_sub(1));
        }
    }
    within(current)
}
