//! Real Kubernetes, throwaway certificates and in-process fleets for the tests, and the tests of the whole
