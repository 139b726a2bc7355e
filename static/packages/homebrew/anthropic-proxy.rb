class AnthropicProxy < Formula
  desc "Transparent, streaming proxy for Anthropic-compatible APIs"
  homepage "@HOMEPAGE@"
  version "@VERSION@"
  license "MIT"

  on_macos do
    on_arm do
      url "@RELEASES@/v@VERSION@/anthropic-proxy-@VERSION@-aarch64-apple-darwin.tar.gz"
      sha256 "@aarch64-apple-darwin@"
    end
    on_intel do
      url "@RELEASES@/v@VERSION@/anthropic-proxy-@VERSION@-x86_64-apple-darwin.tar.gz"
      sha256 "@x86_64-apple-darwin@"
    end
  end
  on_linux do
    on_arm do
      url "@RELEASES@/v@VERSION@/anthropic-proxy-@VERSION@-aarch64-unknown-linux-musl.tar.gz"
      sha256 "@aarch64-unknown-linux-musl@"
    end
    on_intel do
      url "@RELEASES@/v@VERSION@/anthropic-proxy-@VERSION@-x86_64-unknown-linux-musl.tar.gz"
      sha256 "@x86_64-unknown-linux-musl@"
    end
  end

  def install
    bin.install "anthropic-proxy"
    man1.install Dir["man/*.1"]
    bash_completion.install "bash-completion/completions/anthropic-proxy"
    zsh_completion.install "zsh/vendor-completions/_anthropic-proxy"
    fish_completion.install "fish/vendor_completions.d/anthropic-proxy.fish"
    doc.install "README.md", ".env.example"
    (etc/"anthropic-proxy").mkpath
  end

  # settings: #{etc}/anthropic-proxy/.env
  service do
    run [opt_bin/"anthropic-proxy", "--env-file", etc/"anthropic-proxy/.env"]
    environment_variables DATA_DIR: var/"lib/anthropic-proxy"
    keep_alive crashed: true
    log_path var/"log/anthropic-proxy.log"
    error_log_path var/"log/anthropic-proxy.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/anthropic-proxy --version")
    assert_match "API_BASE_URL", shell_output("#{bin}/anthropic-proxy check")
  end
end
