//! Who a node is: the Ed25519 key behind its libp2p peer id, read from and kept in a file.
//!
//! Never decides who may do what.
