//! What a container sees under `/proc` and `/sys` instead of the host's figures.
//!
//! [`live`] has the contents of the nodes that follow the container's control groups: pure functions from the host's text and
//! the kernel's figures to the container's text, and the reading of both through descriptors that were opened beforehand.

pub mod live;
