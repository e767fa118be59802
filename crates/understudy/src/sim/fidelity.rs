//! The simulated target beside a real one: the same commands, the same answers.
