//! gRPC services, policy, configuration, composition root, the dirnode binary and its client commands
