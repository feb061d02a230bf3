//! A rate over sliding windows (`Rate` over `WindowedSum`), and the time to throttle.

/// `quota.window.num` and `quota.window.size.seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How many samples a rate is made of.
    pub count: u32,
    /// The length of a sample, in milliseconds.
    pub length_ms: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self { count: 11, length_ms: 1_000 }
    }
}

impl Windows {
    /// The time after which a sample is forgotten.
    pub fn all_ms(self) -> u64 {
        u64::from(self.count).saturating_mul(self.length_ms)
    }

    /// How much a bucket may do at once, in its unit: the largest fetch that can pass at all.
    pub fn at_once(self, rate: f64) -> f64 {
        rate * f64::from(self.count.saturating_sub(1)) * self.seconds()
    }

    pub(super) fn seconds(self) -> f64 {
        self.length_ms as f64 / 1_000.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    start_ms: u64,
    last_ms: u64,
    value: f64,
}

impl Sample {
    fn new(now_ms: u64) -> Self {
        Self { start_ms: now_ms, last_ms: now_ms, value: 0.0 }
    }
}

/// How much came in the last windows. The times are of any one clock, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    samples: Vec<Sample>,
    current: usize,
}

impl Rate {
    /// Counts `value`; a negative one takes back what was counted.
    pub fn record(&mut self, windows: Windows, value: f64, now_ms: u64) {
        if self.samples.is_empty() {
            self.samples.push(Sample::new(now_ms));
        }
        let is_complete =
            |sample: &Sample| now_ms.saturating_sub(sample.start_ms) >= windows.length_ms;
        if self.samples.get(self.current).is_none_or(is_complete) {
            // One more than the windows, because the oldest sample may begin before them.
            self.current = (self.current + 1) % (windows.count as usize + 1);
            match self.samples.get_mut(self.current) {
                Some(oldest) => *oldest = Sample::new(now_ms),
                None => {
                    self.current = self.samples.len();
                    self.samples.push(Sample::new(now_ms));
                }
            }
        }
        if let Some(sample) = self.samples.get_mut(self.current) {
            sample.value += value;
            sample.last_ms = now_ms;
        }
    }

    /// How much a second.
    pub fn measure(&mut self, windows: Windows, now_ms: u64) -> f64 {
        let length_ms = self.length_ms(windows, now_ms);
        let sum: f64 = self.samples.iter().map(|sample| sample.value).sum();
        sum / (length_ms as f64 / 1_000.0)
    }

    /// How long the client is to be throttled so that the rate comes down to `limit`, in
    /// milliseconds; 0 if it is not above (`QuotaUtils.throttleTime`).
    pub fn throttle_ms(&mut self, windows: Windows, limit: f64, now_ms: u64) -> u64 {
        let rate = self.measure(windows, now_ms);
        if rate <= limit {
            return 0;
        }
        let length_ms = self.length_ms(windows, now_ms) as f64;
        // `Math.round`, and at most what an answer can say.
        let throttle = ((rate - limit) / limit * length_ms + 0.5).floor();
        throttle.clamp(0.0, f64::from(i32::MAX)) as u64
    }

    /// Whether nothing is left of what was counted: it is as if it were new.
    pub fn is_idle(&self, windows: Windows, now_ms: u64) -> bool {
        let mut samples = self.samples.iter();
        samples.all(|sample| now_ms.saturating_sub(sample.last_ms) >= windows.all_ms())
    }

    /// The time that the rate is over (`Rate.windowSize`): all windows but one, even if they are
    /// not over yet, and what there is of the current one.
    fn length_ms(&mut self, windows: Windows, now_ms: u64) -> u64 {
        for sample in &mut self.samples {
            if now_ms.saturating_sub(sample.last_ms) >= windows.all_ms() {
                *sample = Sample::new(now_ms);
            }
        }
        let oldest = self.samples.iter().map(|sample| sample.start_ms).min().unwrap_or(now_ms);
        let elapsed_ms = now_ms.saturating_sub(oldest);
        let full = elapsed_ms / windows.length_ms.max(1);
        let missing = u64::from(windows.count.saturating_sub(1)).saturating_sub(full);
        (elapsed_ms + missing * windows.length_ms).max(1)
    }
}
