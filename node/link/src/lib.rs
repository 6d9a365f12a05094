//! Namespaces, bridges, taps, routers: tenant links by netlink.
