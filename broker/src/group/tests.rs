//! Scenario tests of the machine: what is asked, in the order and at the time in which it is asked, and what is answered, written and due.

mod bounds;
mod classic;
mod classic_client;
mod consumer;
mod migration;
mod mixed;
mod offsets;
mod upgrade;
mod world;
