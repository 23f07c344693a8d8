$ErrorActionPreference = 'Stop'
$target = 'C:/ProgramData/labctl/steps/04/setup.ps1'
New-Item -ItemType Directory -Force -Path (Split-Path -Parent $target) | Out-Null
Move-Item -Force -LiteralPath 'C:/Windows/Temp/labctl-upload' -Destination $target
& $target 'it''s' '$(Get-Date)'
if ($LASTEXITCODE) { exit $LASTEXITCODE }
