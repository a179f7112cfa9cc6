-- Asks the tightfit planner what a submitted job needs, on the client: in sbatch, srun and salloc.
--
-- Only jobs whose comment begins with "tightfit:" or "tightfit-cpu:" are looked at:
--     sbatch --comment=tightfit:job.json train.sh          the GPU types that hold the job
--     sbatch --comment=tightfit-cpu:job.json train.sh      main memory
-- job.json is a tightfit job file. What the user asked for stays; what is missing is filled in. A planner that
-- is down or slow, or takes no question from this host, changes nothing: after CURL_SECONDS at the latest the job
-- is submitted as it stands.
--
-- Settings, a line each, in tightfit.conf beside slurm.conf:
--     planner_url=http://head:8080
--     holes=/etc/slurm/tightfit-holes.json                 written by `tightfit slurm-holes`
--     features=yes                                         nodes have a feature called like their GRES type
--     api_key_file=/etc/slurm/tightfit.key                 where the planner wants a key

local CURL_SECONDS = 1

-- Answers that are about the asking and not about the job: no key, no right, holes too many, asked too often.
local NOT_ABOUT_THE_JOB = {[401] = true, [403] = true, [413] = true, [429] = true}

-- Options of sbatch that ask for devices, and for main memory: beside one of them another would not do.
local DEVICE_OPTIONS = {"gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"}
local MEMORY_OPTIONS = {"mem", "mem-per-cpu", "mem-per-gpu"}

local function read_file(path)
   local file = io.open(path, "r")
   if file == nil then return nil end
   local text = file:read("*a")
   file:close()
   return text
end

local function settings()
   local folder = (os.getenv("SLURM_CONF") or "/etc/slurm/slurm.conf"):match("^(.*)/") or "/etc/slurm"
   local found = {}
   for line in (read_file(folder .. "/tightfit.conf") or ""):gmatch("[^\n]+") do
      local name, value = line:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
      if name ~= nil then found[name] = value end
   end
   return found
end

local function quoted(text)
   return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Status and body of the planner's answer; status 0 when nothing answers in time.
local function ask(configured, body)
   local name = os.tmpname()
   local file = io.open(name, "w")
   file:write(body)
   file:close()
   local key = configured.api_key_file and read_file(configured.api_key_file)
   local header = ""
   if key ~= nil then header = " --header " .. quoted("authorization: Bearer " .. key:gsub("%s", "")) end
   local command = "curl --silent --max-time " .. CURL_SECONDS .. " --header 'content-type: application/json'" ..
      header .. " --data-binary @" .. quoted(name) .. " --write-out '\\n%{http_code}' " ..
      quoted(configured.planner_url .. "/v1/placements") .. " 2>/dev/null"
   local pipe = io.popen(command, "r")
   local answer = pipe:read("*a") or ""
   pipe:close()
   os.remove(name)
   local text, status = answer:match("^(.*)\n(%d+)%s*$")
   return tonumber(status or 0), text or ""
end

-- The alternatives in Slurm's words: a list of lists of arguments.
local function alternatives(answer)
   local found = {}
   local words = answer:match('"slurm":{"alternatives":(%b[])') or ""
   for alternative in words:sub(2, -2):gmatch("%b[]") do
      local arguments = {}
      for name, value in alternative:gmatch('"%-%-([%w-]+)=(.-)"') do arguments[name] = value end
      table.insert(found, arguments)
   end
   return found
end

-- By features all types at once, where nodes have them; else the quickest type.
local function chosen(found, configured)
   for _, arguments in ipairs(found) do
      if configured.features == "yes" and arguments.constraint ~= nil then return arguments end
   end
   return found[1]
end

local function types_of(found)
   local names = {}
   for _, arguments in ipairs(found) do
      local name = (arguments.gres or ""):match("^gpu:([^:]+):")
      if name ~= nil then table.insert(names, name) end
   end
   return table.concat(names, ",")
end

local function is_given(value)
   return value ~= nil and value ~= "" and value ~= "0" and value ~= "unset" and value ~= "(null)"
end

-- Whether one of these options asks for what is named; without a name, for anything.
local function asks(options, names, wanted)
   for _, name in ipairs(names) do
      local value = options[name]
      if is_given(value) and (wanted == nil or name ~= "gres" or tostring(value):match(wanted)) then return true end
   end
   return false
end

-- Which device or how much memory the user asks for stays, in whatever option it was said.
local function fill(options, arguments)
   if arguments.gres ~= nil and asks(options, DEVICE_OPTIONS, "gpu") then return end
   for name, value in pairs(arguments) do
      if name == "gres" and is_given(options.gres) then value = options.gres .. "," .. value end
      local is_missing = not is_given(options[name]) or name == "gres"
      if name == "mem" then is_missing = not asks(options, MEMORY_OPTIONS) end
      if is_missing then options[name] = value end
   end
end

-- What a submission's comment asks to be looked at: the kind of device, and the job file; nil for other comments.
local function asked_for(comment)
   for prefix, kind in pairs({["tightfit:"] = "cuda", ["tightfit-cpu:"] = "cpu"}) do
      if comment:sub(1, #prefix) == prefix then return kind, comment:sub(#prefix + 1):match("^%S+"), prefix end
   end
end

local function as_it_stands(configured, why)
   slurm.log_error("tightfit: %s %s; submitted as it stands", configured.planner_url, why)
   return slurm.SUCCESS
end

local function nothing_found(answer)
   if answer:match('"words":null') == nil then
      slurm.log_error("tightfit: devices hold the job, but none that Slurm has a name for: name them in the holes")
   else
      slurm.log_error("tightfit: no node of this cluster holds the job: its leanest plan needs %s bytes",
         answer:match('"minimum_budget_bytes":(%d+)') or "?")
   end
   return slurm.ERROR
end

function slurm_cli_setup_defaults(options, early_pass)
   return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, pack_offset)
   local kind, path, prefix = asked_for(options["comment"] or "")
   if path == nil then return slurm.SUCCESS end
   local configured = settings()
   local job = read_file(path)
   local holes = read_file(configured.holes or "")
   if job == nil then
      slurm.log_error("tightfit: cannot read the job file %s", path)
      return slurm.ERROR
   end
   if not job:match("^%s*{") then
      slurm.log_error("tightfit: %s is not in JSON, the only notation that this filter passes on", path)
      return slurm.ERROR
   end
   if configured.planner_url == nil or holes == nil then
      slurm.log_error("tightfit: tightfit.conf names no planner_url or no readable holes; submitted as it stands")
      return slurm.SUCCESS
   end
   local body = '{"jobs":[{"name":"job","device":"' .. kind .. '","job":' .. job .. '}],"holes":' .. holes ..
      ',"most_offers":1,"planned_offers":0}'
   local status, answer = ask(configured, body)
   if status == 0 or status >= 500 then
      return as_it_stands(configured, string.format("gave no answer within %d s (status %d)", CURL_SECONDS, status))
   end
   local detail = answer:match('"detail":%s*"(.-)"[,}]') or ("status " .. status)
   if NOT_ABOUT_THE_JOB[status] then
      return as_it_stands(configured, "does not answer this host: " .. detail)
   end
   if status ~= 200 then
      slurm.log_error("tightfit: %s", detail)
      return slurm.ERROR
   end
   local found = alternatives(answer)
   if #found == 0 then return nothing_found(answer) end
   fill(options, chosen(found, configured))
   local request = tonumber(answer:match('"request_bytes":(%d+),"limit_bytes":%d+,"slurm"') or 0)
   -- For job_submit.lua, which checks without asking anybody.
   options["comment"] = string.format("%s%s request_mib=%d types=%s", prefix, path,
      math.ceil(request / 2 ^ 20), types_of(found))
   return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
   return slurm.SUCCESS
end
