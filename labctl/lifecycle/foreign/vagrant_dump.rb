# A Vagrantfile of labctl's own: it gives Vagrant a command that loads another Vagrantfile and writes what that one says
# as JSON, so that the file is read by the program it was written for.
#
#   vagrant labctl-describe RESULT HOME FOLDER FILE
#
# RESULT: where the JSON goes. HOME: Vagrant's home and data for the other file. FOLDER, FILE: where that file is.

require "json"

module LabctlImport
  PREFERRED = %i[virtualbox libvirt vmware_desktop vmware_fusion vmware_workstation parallels hyperv]
  LIMIT = 12 # levels; a configuration may hold itself

  # Stands in for the configuration of a provider that is not installed here: keeps what is assigned to it.
  class Settings < Vagrant.plugin("2", :config)
    def method_missing(name, *values, &_block)
      return super if @__finalized || %i[to_hash to_ary to_str].include?(name)
      key = name.to_s
      return instance_variable_set("@#{key.chomp("=")}", values.first) if key.match?(/\A[a-z]\w*=\z/)
      return (@vmx ||= {}) if name == :vmx # VMware's settings are a table
      Vagrant::Config::V2::DummyConfig.new
    end

    def respond_to_missing?(*)
      true
    end
  end

  class Describe < Vagrant.plugin("2", :command)
    def execute
      result, home, folder, file = @argv
      begin
        said = {machines: machines(home, folder, file)}
      rescue Exception => error # also what a Vagrantfile ends Vagrant with
        said = {error: "#{error.class}: #{error.message}"}
      end
      File.binwrite(result, JSON.generate(plain(said)))
      # Nothing that the other file left for the end of the program comes after the result.
      exit!(0)
    end

    private

    def machines(home, folder, file)
      Dir.chdir(folder)
      environment = Vagrant::Environment.new(
        cwd: folder, home_path: Pathname.new(home), local_data_path: File.join(home, "local"),
        vagrantfile_name: [file], ui_class: Vagrant::UI::Silent, child: true
      )
      vagrantfile = environment.vagrantfile
      options = vagrantfile.machine_names_and_options
      # Vagrant evaluates every machine's block before it looks at one, and a block may change what holds for all.
      vagrantfile.machine_names.each { |name| general(vagrantfile, name) }
      vagrantfile.machine_names.map { |name| machine(vagrantfile, name, options[name] || {}) }
    end

    def machine(vagrantfile, name, options)
      vm = general(vagrantfile, name).vm
      providers = vm.instance_variable_get(:@__providers).keys
      provider = (PREFERRED & providers).first || providers.first
      # Again, since a provider's block may override what is said elsewhere.
      vm = vagrantfile.machine_config(name, provider, nil, nil, false)[:config].vm if provider
      {
        name: name, autostart: options.fetch(:autostart, true), providers: providers, provider: provider,
        settings: provider && values(vm.get_provider_config(provider)),
        box: vm.box, hostname: vm.hostname, communicator: vm.communicator, guest: vm.guest,
        networks: vm.networks, synced_folders: vm.synced_folders.values,
        provisioners: vm.provisioners.map { |p| {name: p.name, type: p.type, run: p.run, config: values(p.config)} },
        disks: vm.disks.map { |disk| values(disk) }
      }
    end

    # A machine's configuration, whoever provides it.
    def general(vagrantfile, name)
      vagrantfile.machine_config(name, nil, nil, nil, false)[:config]
    end

    # The settings of a configuration object, without what is Vagrant's own.
    def values(object)
      object.instance_variables.reject { |v| v.start_with?("@__") || v == :@logger }.to_h do |variable|
        [variable.to_s.delete_prefix("@"), object.instance_variable_get(variable)]
      end
    end

    # A value as JSON can hold it.
    def plain(value, depth = 0)
      return nil if depth > LIMIT || value == Vagrant::Plugin::V2::Config::UNSET_VALUE
      case value
      when nil, true, false, Integer then value
      when Float then value.finite? ? value : nil
      when Hash then value.to_h { |key, below| [text(key), plain(below, depth + 1)] }
      when Array, Set then value.map { |below| plain(below, depth + 1) }
      when String, Symbol, Pathname then text(value)
      end
    end

    def text(value)
      written = value.to_s.dup
      written.force_encoding(Encoding::UTF_8) if written.encoding == Encoding::BINARY
      written.encode(Encoding::UTF_8, invalid: :replace, undef: :replace).scrub
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "labctl import"
    command("labctl-describe", primary: false) { Describe }
    PREFERRED.each do |provider|
      config(provider, :provider) { Settings } unless Vagrant.plugin("2").manager.provider_configs[provider]
    end
  end
end

# The file is read, not run: what it needs of plug-ins and of Vagrant's version may be missing here.
module Vagrant
  def self.has_plugin?(*)
    true
  end

  def self.require_version(*); end

  class Environment
    def find_configured_plugins
      {}
    end
  end
end
