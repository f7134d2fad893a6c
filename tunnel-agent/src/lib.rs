//! The cluster agent: keeps tunnels up and forwards to the API server with its own credential
