.DEFAULT_GOAL := help
.PHONY: help run test check fix bench docs

help: ## what can be made here
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start a server on 127.0.0.1:6001 with the app app-id / app-key / app-secret
	cargo run --release

test: ## install what the tests need, build, run every test; the last line is the sum
	@tests/run

check: ## format, clippy, documentation, dependencies: what CI asks before it tests
	@tests/check

fix: ## repair what a tool can repair
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench: ## criterion for each hot function, then the short matrix of the load tool
	cargo bench
	cargo run --release -p herald-loadtest -- report --short

docs: ## the code's documentation, opened from target/doc/herald/index.html
	cargo doc --workspace --no-deps
