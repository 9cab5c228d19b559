//! A node that holds nothing but the network together.
