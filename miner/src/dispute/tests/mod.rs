//! Parts of the seats on their own: moves before a node that the test moves, models on devices that refuse and fail.

mod outbox;
mod shelf;
